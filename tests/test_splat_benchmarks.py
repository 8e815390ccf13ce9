"""Synthetic images of one scene, and a second trainer that gets them and reports its scores."""

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pycolmap
import pytest
import torch

from benchmarks import (
    captured_images,
    distill_step,
    scenes_throughput,
    splat_step,
    splat_train,
    train_gpus,
)
from benchmarks import splat_cases as cases
from benchmarks.command_line import launch
from benchmarks.plain_trainer import Plain
from benchmarks.recipes import BUDGETS, RECIPES
from stages.run import layout
from stages.run.files import read_json
from stages.scenes.cameras import rotation_angle_deg
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig

TRAINER = """
import json, pathlib, sys
data, result, steps = sys.argv[1:]
images = len(list(pathlib.Path(data, "images").iterdir()))
stats = pathlib.Path(result, "stats")
stats.mkdir(parents=True)
last = f"{int(steps) - 1:04d}"
(stats / f"val_step{last}.json").write_text(json.dumps({"psnr": 20.0 + images, "num_GS": 7}))
(stats / f"train_step{last}_rank0.json").write_text(json.dumps({"ellipse_time": 4.0}))
"""


@pytest.fixture(scope="module")
def capture() -> captured_images.Capture:
    return captured_images.phone(3, 36, 64, "cpu", points=240)


def test_points_have_their_colour_in_every_image(capture) -> None:
    errors = []
    for camera, image in zip(capture.cameras, capture.images, strict=True):
        pixels, depths = camera.project(capture.points)
        column, row = np.floor(pixels).astype(int).T
        visible = (depths > 0) & (column >= 0) & (column < 36) & (row >= 0) & (row < 64)
        shown = image[row[visible], column[visible]].astype(float)
        errors.append(np.abs(shown - capture.colors[visible]).mean(axis=1))
    # Some lie behind a sphere, and pixels are coarse; a wrong pose gives 80.
    assert np.median(np.concatenate(errors)) < 25


def test_only_the_spheres_move_between_timestamps() -> None:
    first, second = (
        captured_images.rig(1, 32, 40, moment, "cpu").images[0] for moment in (0.0, 0.4)
    )
    changed = (first != second).any(axis=2).mean()
    assert 0.01 < changed < 0.9


def test_dataset_comes_back_from_its_folder(capture, tmp_path: Path) -> None:
    captured_images.write(capture, tmp_path)
    found = captured_images.read(tmp_path)
    assert np.array_equal(found.images, capture.images)
    assert np.array_equal(found.colors, capture.colors)
    assert np.allclose(found.points, capture.points)
    for one, other in zip(found.cameras, capture.cameras, strict=True):
        assert np.allclose(one.cam_from_world, other.cam_from_world)
        assert np.allclose(one.K, other.K)
        assert (one.name, one.width, one.height) == (other.name, other.width, other.height)


def test_model_of_colmap_itself_is_read(capture, tmp_path: Path) -> None:
    captured_images.write(capture, tmp_path)
    folder = tmp_path / "sparse" / "0"
    pycolmap.Reconstruction(folder).write_text(folder)  # with comments
    lines = (folder / "images.txt").read_text().splitlines()
    comments = sum(line.startswith("#") for line in lines)
    assert comments > 0
    features = ["10.5 20.5 -1"] * len(capture.cameras)
    views = lines[comments::2]
    views.reverse()  # COLMAP sorts by number, which need not be the order of names
    pairs = [line for pair in zip(views, features, strict=True) for line in pair]
    (folder / "images.txt").write_text("\n".join([*lines[:comments], *pairs]) + "\n")
    found = captured_images.read(tmp_path)
    assert np.array_equal(found.images, capture.images)
    assert np.allclose(found.points, capture.points)
    for one, other in zip(found.cameras, capture.cameras, strict=True):
        assert np.allclose(one.cam_from_world, other.cam_from_world)


def test_second_trainer_is_run_on_the_dataset_and_timed_by_its_own_clock(
    capture, tmp_path: Path
) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    command = f"{sys.executable} {script} {{data}} {{result}} {{steps}}"
    args = argparse.Namespace(trainer=command, steps=200, size="36x64", device="cpu")
    row = splat_train.theirs(capture, 42, args)
    assert row["psnr_db"] == 23.0  # three images
    assert row["value"] == 4.0
    assert row["steps_per_s"] == 50.0
    assert row["gaussians"] == 7
    assert "psnr_moved_db" not in row


def test_photographed_images_have_errors_of_the_size_that_is_said(capture) -> None:
    photographed = captured_images.photographed(capture)
    pairs = list(zip(photographed.cameras, capture.cameras, strict=True))
    angles = [
        rotation_angle_deg(one.cam_from_world[:3, :3], other.cam_from_world[:3, :3])
        for one, other in pairs
    ]
    assert 0.005 < np.mean(angles) < 0.15
    apart = photographed.images.astype(float) - capture.images
    assert 1.5 < np.std(apart - apart.mean((1, 2), keepdims=True)) < 8
    assert np.array_equal(photographed.points, capture.points)


@pytest.mark.parametrize(
    "words",
    [
        "--photographed",
        "--data capture",
        "--gaussians 9000",
        "--schedule 30000",
        "--every 4",
        "--size 540x720",
        "--steps 1000",
        "--views 20",
        "--points 900",
        "--device cpu",
    ],
)
def test_figures_of_others_stand_beside_their_own_case_alone(words: str) -> None:
    assert splat_train.is_usual(splat_train.options().parse_args([]))
    assert not splat_train.is_usual(splat_train.options().parse_args(words.split()))


def test_each_view_is_held_out_by_one_offset(capture) -> None:
    names = [camera.name for camera in capture.cameras]
    for offset, name in enumerate(names):
        views, held_out = cases.split(capture, 3, offset)
        assert [view.camera.name for view in held_out] == [name]
        assert [view.camera.name for view in views] == [one for one in names if one != name]


def test_recipes_to_a_number_get_it_from_the_default_of_their_capture(
    capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two captures, of which the second starts from fewer points."""
    fewer = replace(capture, points=capture.points[:180], colors=capture.colors[:180])
    for name, one in (("first", capture), ("second", fewer)):
        captured_images.write(one, tmp_path / name)
    command = [
        *("splat_train", "--device", "cpu", "--steps", "60", "--every", "3", "--rotate"),
        *("--recipes", "default", "budget", "fewer", "--seeds", "1", "2", "--data"),
        *(str(tmp_path / name) for name in ("first", "second")),
        *("--out", str(tmp_path / "rows.json")),
    ]
    monkeypatch.setattr(sys, "argv", command)
    splat_train.main()
    rows = read_json(tmp_path / "rows.json")["rows"]
    assert len(rows) == 12
    counts = {}
    for name in ("first", "second"):
        found = [row["gaussians"] for row in rows if row["data"] == str(tmp_path / name)]
        counts[name] = [found[k::2] for k in (0, 1)]
    assert counts["second"][0][0] < counts["first"][0][0]
    for first, second in counts.values():
        mean = (first[0] + second[0]) / 2
        assert first[1] == second[1] == round(mean)
        assert first[2] == second[2] == round(BUDGETS["fewer"][1] * mean)
    pair = [row["psnr_db"] for row in rows if row["data"] == str(tmp_path / "first")]
    apart = [pair[2] - pair[0], pair[3] - pair[1]]
    assert (
        f"; {np.mean(apart):+.3f} dB, standard error {abs(apart[0] - apart[1]) / 2:.3f}, against"
        in capsys.readouterr().out
    )


def test_number_of_a_recipe_has_to_come_from_somewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["splat_train", "--recipes", "budget", "default"])
    with pytest.raises(SystemExit):
        splat_train.main()
    assert "budget: put default before them, or give --gaussians" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--variant a nosuch=1", "--variant a: nosuch=1 is no KEY=VALUE of train:"),
        ("--variant a strategy.nosuch=1", "strategy.nosuch=1 is no KEY=VALUE"),
        ("--variant a max_gaussians=3", "--variant a: max_gaussians: at least 4"),
        ("--variant a max_gaussians", "--variant a: max_gaussians is no KEY=VALUE"),
        ("--variant a", "--variant a: no KEY=VALUE"),
        ("--variant a means_lr=[1", "--variant a: means_lr=[1: the value is no YAML"),
        ("--variant a seed=1", "seed=1: --seeds sets it"),
        ("--variant a max_steps=1", "max_steps=1: --steps sets it"),
        ("--variant a backend=cuda", "backend=cuda: --device sets it"),
        ("--variant a strategy.kind=mcmc", "--variant a: strategy.kind=mcmc needs a GPU"),
        ("--variant a means_lr=1 --variant a means_lr=2", "--variant a: named 2 times"),
        ("--variant fewer means_lr=1", "--variant fewer: a recipe has this name"),
        ("--recipes default default", "--recipes: default is named 2 times"),
        ("--recipes default fewer --gaussians 4", "fewer: max_gaussians: at least 4"),
        ("--size 960", "--size: 960 is no width x height"),
        ("--size 0x9", "--size: 0x9 is no width x height"),
        ("--every 1", "--every: 1 is below 2"),
        ("--steps 0", "--steps: 0 is below 1"),
        ("--gaussians 0", "--gaussians: 0 is below 4"),
        ("--rotate --views 5", "--rotate: 5 views are fewer than --every 8"),
        ("--trainer {nosuch}", "--trainer: KeyError('nosuch')"),
    ],
)
def test_what_a_later_training_would_fail_by_is_refused_before_the_first(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(splat_train, "captured", lambda *_: pytest.fail("data were read"))
    monkeypatch.setattr(sys, "argv", ["splat_train", "--device", "cpu", *words.split()])
    with pytest.raises(SystemExit) as exit_:
        splat_train.main()
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["images", "sparse/0/images.txt", "sparse/0/points3D.txt"])
def test_every_capture_is_looked_for_before_the_first_training(
    capture,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("whole", "torn"):
        captured_images.write(capture, tmp_path / folder)
    assert captured_images.missing(tmp_path / "torn") == []
    (tmp_path / "torn" / name).rename(tmp_path / "away")
    monkeypatch.setattr(splat_train, "captured", lambda *_: pytest.fail("data were read"))
    words = ["--device", "cpu", "--data", *(str(tmp_path / one) for one in ("whole", "torn"))]
    monkeypatch.setattr(sys, "argv", ["splat_train", *words])
    with pytest.raises(SystemExit):
        splat_train.main()
    assert f"--data {tmp_path / 'torn'}: no {name}" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        (splat_train, "give --device cpu"),
        (splat_step, "this benchmark needs"),
        (scenes_throughput, "this benchmark needs"),
    ],
)
def test_without_a_gpu_there_is_one_line(
    benchmark: ModuleType,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    (line,) = refused(benchmark, capsys)
    assert said in line


def refused(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines by which a benchmark ends with exit code 2."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as exit_:
            launch(benchmark.main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_a_scene_that_was_not_trained_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["distill_step", "--scene", "nosuch"])
    said = "--scene nosuch: no such trained scene; run `dvc repro train@nosuch`"
    assert refused(distill_step, capsys) == [said]


def test_variant_is_the_first_recipe_with_its_changes() -> None:
    words = "--recipes fewer seed --gaussians 1000 --steps 140 --rasteriser gsplat"
    variants = "--variant slow means_lr=1e-5 --variant small max_gaussians=90"
    args = splat_train.options().parse_args([*words.split(), *variants.split()])
    fewer, seed, slow, small = (
        splat_train.recipe(name, 3, args) for name in ("fewer", "seed", "slow", "small")
    )
    assert (fewer.max_gaussians, seed.max_gaussians, small.max_gaussians) == (400, 1000, 90)
    assert fewer.strategy.halve_every == 10
    assert not fewer.antialiased
    assert seed.antialiased
    assert {(one.seed, one.rasteriser) for one in (fewer, seed, slow)} == {(3, "gsplat")}
    assert slow == fewer.model_copy(update={"means_lr": 1e-5})
    assert small == fewer.model_copy(update={"max_gaussians": 90})


@pytest.mark.parametrize("recipe", ["default", "seed"])
def test_plain_trainer_reaches_the_same_quality(recipe: str, tmp_path: Path) -> None:
    """Another order of views and another frame, but the same recipe; before growth adds chance."""
    capture, steps = captured_images.phone(9, 48, 80, "cpu", points=900), 200
    words = "--device cpu --steps 200 --views 9 --size 48x80 --points 900"
    args = splat_train.options().parse_args(words.split())
    row = splat_train.ours(capture, recipe, splat_train.recipe(recipe, 42, args), 42, args)
    captured_images.write(capture, tmp_path)
    plain = Plain(tmp_path, RECIPES[recipe](steps), "cpu")
    before = plain.evaluate()["psnr"]
    plain.train(steps)
    found = plain.evaluate()
    after = found.get("psnr_moved", found["psnr"])
    assert after - before > 3.5
    assert row["psnr_db"] == pytest.approx(after, abs=0.05)


@torch.no_grad()
def test_motion_that_scene_and_learnt_poses_share_costs_no_quality(tmp_path: Path) -> None:
    captured_images.write(captured_images.phone(9, 48, 80, "cpu", points=900), tmp_path)
    plain = Plain(tmp_path, RECIPES["seed"](200), "cpu")
    before = plain.evaluate()
    assert before["psnr_moved"] == pytest.approx(before["psnr"], abs=1e-4)
    shift = torch.tensor([0.05, -0.02, 0.03])
    plain.params["means"] += shift
    for camera, correction in zip(plain.cameras, plain.corrections, strict=True):
        correction[:3] = plain._tensor(camera.cam_from_world)[:3, :3] @ shift  # camera-local
    after = plain.evaluate()
    assert after["psnr_moved"] == pytest.approx(before["psnr"], abs=1e-3)
    assert after["psnr"] < before["psnr"] - 0.1  # untrained, it has 10 dB


def test_stage_trains_the_synthetic_timestamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_gpus.write_timestamps(captured_images.timestamps(2, 24, 32, "cpu"))
    scene = Scene.read(layout.scene(train_gpus.SCENE))
    assert [len(scene.views(role, "000001")) for role in ("source", "target")] == [8, 2]
    first, second = (scene.views("source", time)[0].pixels() for time in scene.timestamps)
    assert np.std(first) > 0.05
    assert not np.array_equal(first, second)
    metrics = train_gpus.train([], TrainConfig(max_steps=60))
    assert metrics["timestamps"] == 2
    assert metrics["train_psnr"] > 14  # 10 dB after one step
