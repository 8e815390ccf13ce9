"""The benchmark of the shipped fixer, as its documentation calls it."""

import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from known_scene import SCENE, TIMES
from small_capture import write_capture

from benchmarks import fixer_captures, fixer_quality, fixer_views
from stages.run import layout
from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS
from stages.run.files import read_json
from stages.scenes.colmap import write_model
from stages.scenes.config import ONE_NEAREST
from stages.scenes.dataset import Dataset
from stages.scenes.images import read_image, write_png
from stages.scenes.scene import Scene
from stages.splat.gaussians import Gaussians

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "fixer_quality.json"
METHODS = ["render", "fixed", "references withheld"]


@pytest.fixture
def params(scene, tmp_path: Path) -> None:
    """params.yaml with the known scene in the roles that the benchmark reads."""
    text = (ROOT / "params.yaml").read_text()
    for name in ("hi4d_pair00_dance", "hi4d_pair01_talk", "hi4d_pair02_dance"):
        text = text.replace(f"  - {name}\n", f"  - {SCENE}\n")
    (tmp_path / "params.yaml").write_text(text)


def write_splats(scene: Scene, truth: Gaussians) -> None:
    """The known Gaussians as trained ones, with source cameras in another order than the images."""
    views = scene.views("source", TIMES[0])[::-1]
    cameras = {f"{view.name}.png": view.camera for view in views}
    for time in TIMES:
        truth.save(layout.splats(SCENE) / time / GAUSSIANS)
        write_model(layout.splats(SCENE) / time / LEARNT_CAMERAS, cameras)


def test_references_are_the_images_of_their_own_cameras(scene, truth, params) -> None:
    write_splats(scene, truth)
    targets, *_ = fixer_views.targets_of(SCENE, Path("data"), None, ONE_NEAREST)
    shown = targets.fixed(lambda images, references: [one[0] for one in references], None)
    sources = {view.name: view for view in scene.views("source", TIMES[0])}
    for (name,), image in zip(targets.references, shown, strict=True):
        assert np.array_equal(image, sources[name].pixels())


def test_captures_and_scenes_are_measured_by_every_method(
    scene, truth, params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    write_splats(scene, truth)
    for name in ("room", "hall"):
        write_capture(tmp_path / name)
    for path in (tmp_path / "hall" / "images").rglob("*.png"):
        write_png(path, 1 - read_image(path))
    arguments = ["--captures", "room", "hall", "--views", "3", "--px", "56", "--steps", "12"]
    arguments += ["--data", "data", "--work", "kept", "--out", "rows.json"]
    monkeypatch.setattr(sys, "argv", ["fixer_quality", *arguments])
    fixer_quality.main()
    written = read_json(tmp_path / "rows.json")
    rows = {(row["case"], row["method"]): row for row in written["rows"]}
    cases = {"room, 3 views": 5, "hall, 3 views": 5, "demo, 3 scenes": 6}
    for case, views in cases.items():
        other = "another " + ("scene's" if case.startswith("demo") else "capture's") + " references"
        found = {method: rows.pop((case, method)) for method in [*METHODS, other]}
        assert {row["views"] for row in found.values()} == {views}
        # The one scene in all roles is its own other scene.
        assert len({row["psnr"] for row in found.values()}) == (3 if views == 6 else 4)
    assert [method for _, method in rows] == ["fixed, warps as in training"]
    assert 0 < written["cost"]["seconds"] < 60
    assert written["cost"]["peak_mib"] > 100
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[-3:]] == list(cases)
    assert any("room/3_views_0/fixed" in str(path) for path in (tmp_path / "kept").rglob("*.png"))


def test_few_views_are_spread_and_a_single_other_one_is_held_out_in_turn(tmp_path: Path) -> None:
    dataset = Dataset.read(write_capture(tmp_path / "room"))
    names = [view.name for view in dataset.views]
    (fold,) = fixer_captures.folds_of(dataset, 3)
    assert fold.train == (names[0], names[4], names[7])
    assert sorted([*fold.train, *fold.held_out]) == names
    folds = list(fixer_captures.folds_of(dataset, 7))
    assert [one.held_out for one in folds] == [(name,) for name in names]
    assert all(len(one.train) == 7 for one in folds)
    assert not list(fixer_captures.folds_of(dataset, 8))


def test_subset_keeps_points_that_two_of_its_images_observe(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_frames_per_rig=5,
        num_points3D=60,
        track_length=3,
        camera_width=64,
        camera_height=48,
        camera_params=[80, 32, 24, 0],
    )
    model = pycolmap.synthesize_dataset(options)
    (tmp_path / "all" / "sparse" / "0").mkdir(parents=True)
    model.write(tmp_path / "all" / "sparse" / "0")
    names = sorted(image.name for image in model.images.values())
    for name in names:
        write_png(tmp_path / "all" / "images" / name, np.zeros((48, 64, 3), np.float32))
    dataset = Dataset.read(tmp_path / "all")
    few = fixer_captures.subset(dataset, names[:2], tmp_path / "few")
    chosen = {number for number, image in model.images.items() if image.name in names[:2]}
    expected = [
        point.xyz
        for _, point in sorted(model.points3D.items())
        if len(chosen & {element.image_id for element in point.track.elements}) == 2
    ]
    assert [view.name for view in few.views] == names[:2]
    assert not few.without_pose
    assert 0 < len(expected) < len(dataset.points)
    assert np.allclose(few.points, expected)


def test_card_has_the_figures_that_were_measured() -> None:
    """docs/fixer.md, whose rows name a capture and its views, and the demo's methods."""
    card, written = (ROOT / "docs" / "fixer.md").read_text(), read_json(RESULTS)
    by_case: dict[str, list[dict]] = {}
    for row in written["rows"]:
        by_case.setdefault(row["case"], []).append(row)
    for case, rows in by_case.items():
        if case.startswith("demo"):
            lines = [f"| {row['method']} | {_figures(row, ' | ')} |" for row in rows]
        else:
            lines = [" | ".join(["", case, *(_figures(row, " / ") for row in rows)]).strip()]
        for line in lines:
            assert line in card, line
    assert f"{written['cost']['seconds']:.2f} s" in card
    assert written["cost"]["seconds"] < fixer_quality.MAX_SECONDS


def _figures(row: dict, between: str) -> str:
    return between.join([f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['lpips']:.3f}"])
