"""Stage `fixed_views` with a small fixer on real Gaussians and cameras."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from difix.fixers import perturbed, tiny_spec
from exact_scene import EST_FROM_TRUE, SCENE, SIZE, SOURCES, TIMES, calibrate, write_scene
from small_study import small_study

from stages import fixed_views, novel_views
from stages.difix.weights.folders import write_folder
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, read_json
from stages.run.methods import METHODS
from stages.scenes.colmap import write_model
from stages.scenes.images import read_image, write_png

Call = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the scene, its plain novel views and two fixers."""
    monkeypatch.chdir(tmp_path)
    set_params()
    write_scene()
    cameras = {f"{name}.png": EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    for timestamp in TIMES:
        write_model(layout.splats(SCENE) / timestamp / "cameras" / "sparse" / "0", cameras)
    for seed, folder in enumerate((layout.base(), layout.tuned())):
        write_folder(perturbed(tiny_spec(), seed=seed), folder)
    plain(monkeypatch)
    return tmp_path


@pytest.fixture
def draw(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the stage for one method alone and return its folder."""

    def run(method: str, **params: Any) -> Path:
        set_params(methods=("none", method), **params)
        arguments = ["fixed_views", "--scene", SCENE, "--fixer", method.partition("-")[0]]
        monkeypatch.setattr(sys, "argv", arguments)
        fixed_views.main()
        return layout.novel_views(SCENE, method)

    return run


def set_params(
    align: bool = False, reference: str = "use", rounds: int = 2, methods: tuple[str, ...] = METHODS
) -> None:
    params = {
        "novel_views": {"backend": "cpu", "align": align, "align_steps": 10, "align_lr": 0.002},
        "difix": {"device": "cpu", "reference": reference},
        "distill": {"rounds": rounds, "steps": 6, "min_alpha": 0.2},
        "train": {"backend": "cpu", "sh_degree": 0, "pose_opt": False},
        "study": small_study(methods=methods).model_dump(),
    }
    Path("params.yaml").write_text(json.dumps(params))


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["novel_views", "--scene", SCENE])
    novel_views.main()


def pictures(folder: Path) -> dict[str, str]:
    """Hash of every picture, by its path."""
    return {str(one.relative_to(folder)): file_hash(one) for one in sorted(folder.rglob("*.png"))}


def replace_by_noise(role: str) -> None:
    """Put noise in the place of every photograph of a role."""
    random = np.random.default_rng(0)
    for line in (layout.scene(SCENE) / "split.csv").read_text().splitlines():
        if f",{role}," in f",{line},":
            path = next(part for part in line.split(",") if part.endswith(".png"))
            noise = random.random((SIZE, SIZE, 3)).astype(np.float32)
            write_png(layout.scene(SCENE) / path, noise)


def test_each_fixer_changes_every_picture_in_its_own_way(draw: Call) -> None:
    none, base, tuned = (
        pictures(folder)
        for folder in (layout.novel_views(SCENE, "none"), draw("base-post"), draw("tuned-post"))
    )
    assert len(none) == 4
    for name in none:
        assert len({none[name], base[name], tuned[name]}) == 3
    info = read_json(layout.novel_views(SCENE, "base-post") / "novel_views.json")
    assert info == {"scene": SCENE, "method": "base-post", "views": 4, "kinds": ["given"]}


def test_the_reference_is_seen_unless_it_is_withheld(draw: Call) -> None:
    seen = pictures(draw("base-post"))
    assert pictures(draw("base-post", reference="withhold")) != seen


def test_all_methods_of_a_fixer_are_drawn_together(workspace: Path, draw: Call) -> None:
    alone = {form: folder_hash(draw(f"tuned-{form}")) for form in ("post", "distill")}
    set_params()
    fixed_views.main()
    drawn = layout.fixed_views(SCENE, "tuned")
    assert {one.name: folder_hash(one) for one in drawn.iterdir() if one.is_dir()} == alone
    assert {one.name for one in drawn.iterdir()} == {*alone, "taught.json"}


def test_distilled_gaussians_moved_and_are_kept(draw: Call) -> None:
    folder = draw("tuned-distill")
    for timestamp in TIMES:
        kept = folder / "gaussians" / f"{timestamp}.safetensors"
        trained = layout.splats(SCENE) / timestamp / "gaussians.safetensors"
        assert file_hash(kept) != file_hash(trained)
    distilled = pictures(folder)
    post = pictures(draw("tuned-post"))
    assert distilled.keys() == post.keys()
    assert distilled != post


@pytest.mark.parametrize("method", ["tuned-post", "tuned-distill"])
def test_no_photograph_of_a_target_reaches_a_picture(draw: Call, method: str) -> None:
    before = folder_hash(draw(method))
    replace_by_noise("target")
    assert folder_hash(draw(method)) == before
    replace_by_noise("source")
    assert folder_hash(draw(method)) != before


@pytest.mark.slow  # compiles the backward pass
def test_all_methods_share_the_aligned_poses(draw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(align=True)
    calibrate({"28": 0.01})
    plain(monkeypatch)
    folder = draw("base-post", align=True)
    plain_info = read_json(layout.novel_views(SCENE, "none") / "novel_views.json")
    assert read_json(folder / "novel_views.json")["moves"] == plain_info["moves"]
    for timestamp in TIMES:
        given, aligned = (
            read_image(folder / kind / timestamp / "28.png") for kind in ("given", "aligned")
        )
        assert np.abs(given - aligned).max() > 0.05


def test_unaligned_plain_views_are_not_taken_for_aligned_ones(draw: Call) -> None:
    with pytest.raises(UserError, match="no aligned target poses"):
        draw("base-post", align=True)
    assert not layout.novel_views(SCENE, "base-post").exists()


@pytest.mark.parametrize("fixer", ["none", "tunde", "../none", "base"])
def test_fixer_without_a_method_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, fixer: str
) -> None:
    set_params(methods=("none", "tuned-post"))
    monkeypatch.setattr(sys, "argv", ["fixed_views", "--scene", SCENE, "--fixer", fixer])
    with pytest.raises(UserError, match=r"expected one that study\.methods needs, of base, tuned"):
        fixed_views.main()
    assert [one.name for one in layout.novel_views(SCENE, "none").parent.iterdir()] == ["none"]


def test_missing_fixer_is_named_and_leaves_nothing(draw: Call) -> None:
    shutil.rmtree(layout.tuned())
    with pytest.raises(UserError, match=r"data/difix/tuned"):
        draw("tuned-post")
    assert not layout.novel_views(SCENE, "tuned-post").exists()


@pytest.mark.slow
def test_killed_distillation_goes_on_to_the_same_bytes(draw: Call, workspace: Path) -> None:
    expected = folder_hash(draw("tuned-distill", rounds=8))
    shutil.rmtree(layout.fixed_views(SCENE, "tuned"))
    shutil.rmtree(".work", ignore_errors=True)
    arguments = ["--scene", SCENE, "--fixer", "tuned"]
    command = [sys.executable, "-m", "stages.fixed_views", *arguments]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen(command, env=env, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(Path(".work").rglob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(Path(".work").rglob("*.pt")), "no state was there to go on from"
    assert not layout.novel_views(SCENE, "tuned-distill").exists()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "resumed after round" in done.stderr
    assert folder_hash(layout.novel_views(SCENE, "tuned-distill")) == expected


def test_a_fixer_that_learnt_from_the_scene_is_not_drawn_with(draw: Call) -> None:
    record = layout.base() / "taught.json"
    for group, photographs in (("pair15", []), ("dogs", [file_hash(one_photograph())])):
        lesson = {"scene": "elsewhere", "group": group, "photographs": photographs}
        record.write_text(json.dumps({"scenes": [lesson], "unknown": []}))
        with pytest.raises(UserError, match="this fixer learnt from"):
            draw("base-post")
    assert not layout.novel_views(SCENE, "base-post").exists()


def one_photograph() -> Path:
    return next(layout.scene(SCENE).rglob("images/*.png"))


def test_what_taught_the_fixer_goes_with_its_pictures(
    draw: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    (layout.base() / "taught.json").unlink()
    draw("base-post")
    told = f"{layout.base()} (its record taught.json is missing)"
    assert f"note: the training scenes of {told} are unknown" in capsys.readouterr().out
    found = read_json(layout.fixed_views(SCENE, "base") / "taught.json")
    assert found == {"scenes": [], "unknown": [told]}
