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

from benchmarks import distill_step
from stages import fixed_views, novel_views
from stages.difix.network.training_record import TUNING_FILE
from stages.difix.weights.folders import write_folder
from stages.run import layout
from stages.run.artefacts import GAUSSIANS
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, read_json, write_json
from stages.run.methods import METHODS
from stages.scenes.colmap import write_model
from stages.scenes.images import read_image, write_png
from stages.splat.gaussians import Gaussians
from stages.splat.views import distill

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
def render(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the stage for one method and return its folder."""

    def run(method: str, **params: Any) -> Path:
        set_params(methods=("none", method), **params)
        arguments = ["fixed_views", "--scene", SCENE, "--fixer", method.partition("-")[0]]
        monkeypatch.setattr(sys, "argv", arguments)
        fixed_views.main()
        return layout.novel_views(SCENE, method)

    return run


def set_params(
    align: bool = False,
    reference: str = "use",
    reference_from: str = "nearest",
    references: int = 1,
    rounds: int = 2,
    shifted_grids: int = 1,
    methods: tuple[str, ...] = METHODS,
) -> None:
    params = {
        "novel_views": {"backend": "cpu", "align": align, "align_steps": 10, "align_lr": 0.002},
        "difix": {
            "device": "cpu",
            "reference": reference,
            "reference_from": reference_from,
            "references": references,
        },
        "distill": {
            "rounds": rounds,
            "steps": 6,
            "min_alpha": 0.2,
            "shifted_grids": shifted_grids,
        },
        "train": {"backend": "cpu", "sh_degree": 0, "pose_opt": False},
        "study": small_study(methods=methods).model_dump(),
    }
    Path("params.yaml").write_text(json.dumps(params))


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["novel_views", "--scene", SCENE])
    novel_views.main()


def image_hashes(folder: Path) -> dict[str, str]:
    """Hash of every image by its path."""
    paths = sorted(folder.rglob("*.png"))
    return {str(path.relative_to(folder)): file_hash(path) for path in paths}


def replace_by_noise(role: str) -> None:
    """Replace every image of a role by noise."""
    random = np.random.default_rng(0)
    for line in (layout.scene(SCENE) / "split.csv").read_text().splitlines():
        if f",{role}," in f",{line},":
            path = next(part for part in line.split(",") if part.endswith(".png"))
            noise = random.random((SIZE, SIZE, 3)).astype(np.float32)
            write_png(layout.scene(SCENE) / path, noise)


def test_each_fixer_changes_every_render_differently(render: Call) -> None:
    none, base, tuned = (
        image_hashes(folder)
        for folder in (layout.novel_views(SCENE, "none"), render("base-post"), render("tuned-post"))
    )
    assert len(none) == 4
    for name in none:
        assert len({none[name], base[name], tuned[name]}) == 3
    info = read_json(layout.novel_views(SCENE, "base-post") / "novel_views.json")
    assert info == {"scene": SCENE, "method": "base-post", "views": 4, "kinds": ["given"]}


def test_reference_acts_unless_it_is_withheld(render: Call) -> None:
    with_reference = image_hashes(render("base-post"))
    assert image_hashes(render("base-post", reference="withhold")) != with_reference


def test_all_methods_of_a_fixer_are_rendered_together(workspace: Path, render: Call) -> None:
    alone = {form: folder_hash(render(f"tuned-{form}")) for form in ("post", "distill")}
    set_params()
    fixed_views.main()
    folder = layout.fixed_views(SCENE, "tuned")
    assert not (folder / TUNING_FILE).exists(), "this fixer does not say how it was tuned"
    write_json(layout.tuned() / TUNING_FILE, {"steps": 100})
    fixed_views.main()
    assert read_json(folder / TUNING_FILE) == {"steps": 100}
    assert {one.name: folder_hash(one) for one in folder.iterdir() if one.is_dir()} == alone
    assert {one.name for one in folder.iterdir()} == {*alone, "taught.json", TUNING_FILE}


def test_distilled_gaussians_differ_and_are_kept(render: Call) -> None:
    folder = render("tuned-distill")
    for timestamp in TIMES:
        kept = folder / "gaussians" / f"{timestamp}.safetensors"
        trained = layout.splats(SCENE) / timestamp / "gaussians.safetensors"
        assert file_hash(kept) != file_hash(trained)
    distilled = image_hashes(folder)
    post = image_hashes(render("tuned-post"))
    assert distilled.keys() == post.keys()
    assert distilled != post


@pytest.mark.parametrize("policy", ["nearest", "previous"])
@pytest.mark.parametrize("method", ["tuned-post", "tuned-distill"])
def test_ground_truth_reaches_no_novel_view(render: Call, method: str, policy: str) -> None:
    before = folder_hash(render(method, reference_from=policy))
    replace_by_noise("target")
    assert folder_hash(render(method, reference_from=policy)) == before
    replace_by_noise("source")
    assert folder_hash(render(method, reference_from=policy)) != before


def test_number_of_references_reaches_the_fixer(workspace: Path, render: Call) -> None:
    with pytest.raises(UserError, match=r"(?s)difix\.references: 2.*at most 1"):
        render("base-post", references=2)
    write_folder(perturbed(tiny_spec(references=3)), layout.base())
    assert folder_hash(render("base-post") / "given") != folder_hash(
        render("base-post", references=3) / "given"
    )


def test_policy_and_grids_reach_the_distilled_gaussians(render: Call) -> None:
    plain = folder_hash(render("tuned-distill"))
    assert folder_hash(render("tuned-distill", reference_from="previous")) != plain
    assert folder_hash(render("tuned-distill", shifted_grids=2)) != plain


@pytest.mark.slow  # compiles the backward pass
def test_all_methods_share_the_aligned_poses(render: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(align=True)
    calibrate({"28": 0.01})
    plain(monkeypatch)
    folder = render("base-post", align=True)
    plain_info = read_json(layout.novel_views(SCENE, "none") / "novel_views.json")
    assert read_json(folder / "novel_views.json")["moves"] == plain_info["moves"]
    for timestamp in TIMES:
        given, aligned = (
            read_image(folder / kind / timestamp / "28.png") for kind in ("given", "aligned")
        )
        assert np.abs(given - aligned).max() > 0.05


def test_unaligned_plain_views_are_refused_as_aligned_ones(render: Call) -> None:
    with pytest.raises(UserError, match="no aligned target poses"):
        render("base-post", align=True)
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


def test_missing_fixer_is_named_and_leaves_nothing(render: Call) -> None:
    shutil.rmtree(layout.tuned())
    with pytest.raises(UserError, match=r"data/difix/tuned"):
        render("tuned-post")
    assert not layout.novel_views(SCENE, "tuned-post").exists()


@pytest.mark.slow
def test_killed_distillation_resumes_to_the_same_bytes(render: Call, workspace: Path) -> None:
    expected = folder_hash(render("tuned-distill", rounds=8))
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
    assert list(Path(".work").rglob("*.pt")), "there is no state to resume from"
    assert not layout.novel_views(SCENE, "tuned-distill").exists()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "resumed after round" in done.stderr
    assert folder_hash(layout.novel_views(SCENE, "tuned-distill")) == expected


def stop_after_a_round(render: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the state of a distillation after its first round."""
    save = distill._save

    def stopped(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distill, "_save", stopped)
        with pytest.raises(KeyboardInterrupt):
            render("tuned-distill")
    assert list(Path(".work/distill").rglob("state.pt"))


def test_distillation_resumes_on_the_same_cameras_and_images(
    render: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after_a_round(render, monkeypatch)
    render("tuned-distill")
    assert "resumed after round 1" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["target cameras", "fewer target cameras", "source images"])
def test_distillation_towards_other_cameras_or_on_other_images_begins_anew(
    render: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: str,
) -> None:
    stop_after_a_round(render, monkeypatch)
    if changed == "target cameras":
        calibrate({"28": 0.2})
    elif changed == "fewer target cameras":
        split = layout.scene(SCENE) / "split.csv"
        kept = [line for line in split.read_text().splitlines() if "/64.png" not in line]
        split.write_text("\n".join(kept) + "\n")
    else:
        replace_by_noise("source")
    plain(monkeypatch)
    resumable = folder_hash(render("tuned-distill"))
    assert "resumed" not in capsys.readouterr().err
    shutil.rmtree(".work")
    assert folder_hash(render("tuned-distill")) == resumable


def test_fixer_tuned_on_the_scene_is_refused(render: Call) -> None:
    record = layout.base() / "taught.json"
    for group, photographs in (("pair15", []), ("dogs", [file_hash(any_image())])):
        lesson = {"scene": "elsewhere", "group": group, "photographs": photographs}
        record.write_text(json.dumps({"scenes": [lesson], "unknown": []}))
        with pytest.raises(UserError, match="this fixer learnt from"):
            render("base-post")
    assert not layout.novel_views(SCENE, "base-post").exists()


def any_image() -> Path:
    return next(layout.scene(SCENE).rglob("images/*.png"))


def test_record_of_the_tuning_goes_with_the_novel_views(
    render: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    (layout.base() / "taught.json").unlink()
    render("base-post")
    name = f"{layout.base()} (its record taught.json is missing)"
    assert f"note: the training scenes of {name} are unknown" in capsys.readouterr().out
    record = read_json(layout.fixed_views(SCENE, "base") / "taught.json")
    assert record == {"scenes": [], "unknown": [name]}


def test_a_step_of_distillation_is_timed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill_step", "--scene", SCENE, "--steps", "3", "--gaussians", "20"]
    monkeypatch.setattr(sys, "argv", words)
    distill_step.main()
    first, whole, few = capsys.readouterr().out.splitlines()[-3:]
    assert f"{len(SOURCES)} views" in first
    assert int(whole.split()[0]) > int(few.split()[0]) == 20
    assert all(float(line.split()[2]) > 0 for line in (whole, few))


def test_more_gaussians_than_the_scene_has_are_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    total = len(Gaussians.load(layout.splats(SCENE) / TIMES[0] / GAUSSIANS).means)
    words = ["distill_step", "--scene", SCENE, "--gaussians", "20", str(total + 1)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError) as refused:
        distill_step.main()
    assert str(refused.value) == f"--gaussians {total + 1}: the scene has {total}"
    assert capsys.readouterr().out == ""
