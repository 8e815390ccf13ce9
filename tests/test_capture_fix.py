"""Entries capture_fix and static_fix: evaluated views by a small fixer, measured as plain ones."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from difix.fixers import perturbed, tiny_spec, warped_spec
from small_capture import SIZE, cameras, write_capture

from stages import (
    capture_calibrate,
    capture_evaluate,
    capture_fix,
    capture_train,
    static_evaluate,
    static_fix,
    static_table,
    static_train,
)
from stages.difix.weights.folders import write_folder
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, read_json, read_tsv, write_json
from stages.scenes.cameras import nearest_cameras, rigid
from stages.scenes.colmap import read_model
from stages.scenes.images import read_image, write_png

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., None]
HALL = ("a.png", "b.png")
BOTH = ["-S", "capture_study.methods=[post,distill]", "-S", "static.methods=[post,distill]"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call an entry's `main` with arguments, in a folder with params.yaml and two fixers."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    set_params(align_steps=0)
    absent = {"found": False, "from": "", "sha256": "", "reason": "none here"}
    write_json(layout.WEIGHTS / "weights.json", {"alex": absent})
    for seed, folder in enumerate((layout.base(), layout.tuned())):
        write_folder(perturbed(tiny_spec(), seed=seed), folder)

    def call(entry: object, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [entry.__name__, *arguments])
        entry.main()

    return call


def set_params(align_steps: int = 0, rounds: int = 2) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["train"] |= {"backend": "cpu", "max_steps": 12, "sh_degree": 0, "max_gaussians": 300}
    params["train"] |= {"eval_steps": [], "save_steps": []}
    params["capture_train"] |= {"test_every": 4, "align_steps": align_steps}
    params["capture_evaluate"]["align_steps"] = align_steps
    params["distill"] |= {"rounds": rounds, "steps": 4, "min_alpha": 0.2}
    params["static"] |= {"scenes": ["dog"], "cameras": ["stereo"], "train_test_every": 0}
    yaml.dump(params, Path("params.yaml"))


@pytest.fixture
def evaluated(run: Run) -> Run:
    """A capture `room` trained and evaluated on `hall`, in `out`."""
    write_capture(Path("room"))
    write_capture(Path("hall"), cameras(HALL, 0.05))
    run(capture_train, "room", "out", "RIGHT")
    run(capture_evaluate, "out", "hall")
    return run


def replace_by_noise(folder: Path) -> None:
    """Replace every image of a dataset by noise."""
    random = np.random.default_rng(0)
    for path in sorted((folder / "images").rglob("*.png")):
        write_png(path, random.random((SIZE[1], SIZE[0], 3)).astype(np.float32))


def test_methods_are_measured_as_the_plain_views(
    evaluated: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "data/difix/tuned", *BOTH)
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("out/fixed/tuned/eval_on_hall, 2 views") :]
    warned = [line.split()[1] for line in table if line.startswith("WARNING: ")]
    table = table[: len(table) - len(warned)]
    assert [line.split()[0] for line in table] == [
        "out/fixed/tuned/eval_on_hall,",
        "PSNR",
        "none",
        "tuned-post",
        "tuned-distill",
    ]
    plain, folder = read_json(Path("out/eval_on_hall/metrics.json")), Path("out/fixed/tuned")
    measured = {"none": plain} | {
        f"tuned-{form}": read_json(folder / "eval_on_hall" / form / "metrics.json")
        for form in ("post", "distill")
    }
    below = [name for name, of in measured.items() if of["psnr"] < of["mean_color_psnr"]]
    assert warned == [f"{name}:" for name in below] != []
    for row, form in zip(table[3:], ("post", "distill"), strict=True):
        method = folder / "eval_on_hall" / form
        means = read_json(method / "metrics.json")
        assert list(means) == list(plain)
        for key in ("protocol", "views", "mean_color_psnr", "frame"):
            assert means[key] == plain[key]
        assert means["psnr"] != plain["psnr"]
        difference = means["psnr"] - plain["psnr"]
        assert row.split()[1:3] == [f"{means['psnr']:.2f}", f"{difference:+.2f}"]
        rows = read_tsv(method / "views.tsv")
        assert [one["image"] for one in rows] == list(HALL)
        assert np.mean([float(one["psnr"]) for one in rows]) == pytest.approx(means["psnr"])
        for name in HALL:
            assert file_hash(method / "given" / name) != file_hash(
                Path("out/eval_on_hall/given", name)
            )
    assert (folder / "eval_on_hall/distill/gaussians.safetensors").is_file()


def test_covisible_pixels_of_a_set_are_those_of_the_plain_views(
    evaluated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(capture_evaluate, "out", "hall", "-S", "capture_evaluate.covisible=true")
    monkeypatch.setattr(
        "stages.difix.applied.AppliedFixer.fix", lambda self, images, references: images
    )
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")
    plain = read_json(Path("out/eval_on_hall/metrics.json"))
    same = read_json(Path("out/fixed/tuned/eval_on_hall/post/metrics.json"))
    assert plain["mpsnr"] is not None
    assert list(same) == list(plain)
    assert (same["protocol"], same["covisible"]) == (plain["protocol"], plain["covisible"])
    assert same["mpsnr"] == pytest.approx(plain["mpsnr"], abs=0.02)


def test_held_out_views_are_fixed_where_no_set_is_named(evaluated: Run) -> None:
    evaluated(capture_fix, "room", "out", "--fixer", "base")
    folder = Path("out/fixed/base/held_out/post")
    plain = read_json(Path("out/train/metrics.json"))
    means = read_json(folder / "metrics.json")
    assert list(means) == list(plain)
    assert (means["views"], means["protocol"]) == (2, plain["protocol"])
    names = sorted(path.relative_to(folder / "given").as_posix() for path in folder.rglob("*.png"))
    assert names == ["LEFT/00_LEFT.png", "RIGHT/00_RIGHT.png"]


def test_reference_is_the_image_of_the_nearest_training_camera(
    evaluated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shrunk, as it was trained on."""
    evaluated(capture_train, "room", "half", "-S", "train.data_factor=2")
    evaluated(capture_evaluate, "half", "hall")
    calls = []

    def fix(self: object, images: list, references: list) -> list:
        calls.append((images, references))
        return images

    monkeypatch.setattr("stages.difix.applied.AppliedFixer.fix", fix)
    evaluated(capture_fix, "room", "half", "hall", "--fixer", "tuned")
    ((images, references),) = calls
    learnt = read_model(Path("half/train/cameras/sparse/0")).cameras
    assert len(learnt) == 6
    for image, (reference,), camera in zip(
        images, references, cameras(HALL, 0.05).values(), strict=True
    ):
        (nearest,) = nearest_cameras(camera, learnt, 1)
        assert reference.shape == image.shape == (SIZE[1] // 2, SIZE[0] // 2, 3)
        coarse = read_image(Path("room/images") / nearest)
        coarse = coarse.reshape(SIZE[1] // 2, 2, SIZE[0] // 2, 2, 3).mean(axis=(1, 3))
        assert np.abs(reference - coarse).mean() < 0.03
    same = read_json(Path("half/fixed/tuned/eval_on_hall/post/metrics.json"))
    plain = read_json(Path("half/eval_on_hall/metrics.json"))
    assert same["psnr"] == pytest.approx(plain["psnr"], abs=0.02), "an identity changes nothing"


@pytest.mark.parametrize("align_steps", [0, 2])
def test_references_are_warped_into_the_views_of_a_capture(
    run: Run, monkeypatch: pytest.MonkeyPatch, align_steps: int
) -> None:
    """Into every kind of render, from as many training views as the fixer takes."""
    from stages.difix.inference import Runner

    set_params(align_steps)
    write_capture(Path("room"))
    write_capture(Path("hall"), cameras(HALL, 0.05))
    run(capture_train, "room", "out", "RIGHT")
    run(capture_evaluate, "out", "hall")
    shutil.rmtree(layout.tuned())
    write_folder(perturbed(warped_spec(2)), layout.tuned())
    used, fix = [], Runner.fix

    def recorded(self: Runner, images: list, references: list, grids: int = 1) -> list:
        used.extend(references)
        return fix(self, images, references, grids)

    monkeypatch.setattr(Runner, "fix", recorded)
    run(capture_fix, "room", "out", "hall", "--fixer", "tuned", *BOTH)
    kinds = 2 if align_steps else 1
    assert len(used) >= 2 * kinds
    assert {one.shape for some in used for one in some} == {(SIZE[1], SIZE[0], 4)}
    assert all(len(some) == 2 for some in used)
    if align_steps:
        given, aligned = used[0], used[1]
        assert any((one != other).any() for one, other in zip(given, aligned, strict=True))


def test_camera_of_a_scene_is_no_reference_of_a_capture_and_that_is_said(
    evaluated: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("out/fixed/tuned/eval_on_hall")
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")
    assert "reference_from" not in capsys.readouterr().out
    nearest, record = folder_hash(folder / "post"), read_json(folder / "fixed.json")
    assert "references" not in record
    named = ["-S", "difix.reference_from=source:16"]
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned", *named)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "reference_from" in line]
    assert note.startswith("note: difix.reference_from: source:16 names a camera of the study's")
    assert "references are by nearest instead" in note
    assert folder_hash(folder / "post") == nearest
    assert read_json(folder / "fixed.json") == {**record, "references": "nearest"}


def test_previous_fixes_views_of_a_capture_from_its_sources_outwards(
    evaluated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three cameras lead away from the last image: each has the one before it as reference."""
    names = ("1_far.png", "2_near.png", "3_middle.png")
    last = list(cameras().values())[-1]
    steps = dict(zip(names, (0.9, 0.3, 0.6), strict=True))
    away = {
        name: last.moved(rigid(np.eye(3), np.array([-step, 0, 0])) @ last.cam_from_world)
        for name, step in steps.items()
    }
    write_capture(Path("lobby"), away)
    evaluated(capture_evaluate, "out", "lobby")
    calls = []

    def fix(self: object, images: list, references: list) -> list:
        calls.append(references)
        return [np.full_like(image, len(calls) / 8) for image in images]

    monkeypatch.setattr("stages.difix.applied.AppliedFixer.fix", fix)
    previous = ["-S", "difix.reference_from=previous"]
    evaluated(capture_fix, "room", "out", "lobby", "--fixer", "tuned", *previous)
    assert [len(one) for one in calls] == [1, 1, 1]
    assert [float(one[0][0].mean()) for one in calls[1:]] == [1 / 8, 2 / 8]
    assert calls[0][0][0].std() > 0.05, "an image of the capture"
    folder = Path("out/fixed/tuned/eval_on_lobby/post")
    values = [float(read_image(folder / "given" / name).mean()) for name in names]
    np.testing.assert_allclose(values, [3 / 8, 1 / 8, 2 / 8], atol=0.003)
    assert [one["image"] for one in read_tsv(folder / "views.tsv")] == list(names)


@pytest.mark.parametrize("form", ["post", "distill"])
def test_ground_truth_reaches_no_fixed_view(evaluated: Run, form: str) -> None:
    folder = Path("out/fixed/tuned/eval_on_hall")

    def fixed() -> str:
        methods = ["-S", f"capture_study.methods=[{form}]"]
        evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned", *methods)
        hashed = folder_hash(folder / form / "given")
        shutil.rmtree("out/fixed")
        return hashed

    before = fixed()
    replace_by_noise(Path("hall"))
    shutil.rmtree("out/eval_on_hall")
    evaluated(capture_evaluate, "out", "hall")
    assert fixed() == before
    write_folder(perturbed(tiny_spec(), seed=7), layout.tuned())
    assert fixed() != before


@pytest.mark.slow  # compiles the backward pass
def test_aligned_renders_are_fixed_and_distilled_at_the_poses_of_the_plain_ones(run: Run) -> None:
    set_params(align_steps=3)
    write_capture(Path("room"))
    run(capture_train, "room", "out")
    run(capture_fix, "room", "out", "--fixer", "tuned", *BOTH, "-S", "distill.post=false")
    folder = Path("out/fixed/tuned/held_out")
    for form in ("post", "distill"):
        means = read_json(folder / form / "metrics.json")
        assert means["psnr_aligned"] is not None
        assert len(list((folder / form / "aligned").rglob("*.png"))) == 2
    still = ["-S", "distill.rounds=1", "-S", "distill.means_lr_scale=1e-9"]
    still += ["-S", "distill.shape_lr_scale=1e-9", "-S", "distill.sh_lr_scale=1e-9"]
    shutil.rmtree(folder)
    run(capture_fix, "room", "out", "--fixer", "tuned", *BOTH, *still, "-S", "distill.post=false")
    for kind in ("given", "aligned"):
        for path in sorted((folder / "distill" / kind).rglob("*.png")):
            name = path.relative_to(folder / "distill")
            plain = read_image(Path("out/train/held_out") / name)
            assert np.abs(read_image(path) - plain).max() < 2 / 255, "nothing was learnt"


def test_captures_of_the_graph_have_all_variants(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_capture(layout.raw("demo_room"))
    write_capture(layout.eval_set("demo_room"), cameras(HALL, 0.05))
    run(capture_calibrate, "--capture", "demo_room")
    for variant in ("combined", "filtered"):
        run(capture_train, "--capture", "demo_room", "--variant", variant)
        run(capture_evaluate, "--capture", "demo_room", "--variant", variant)
    run(capture_fix, "--capture", "demo_room", "--fixer", "tuned")
    metrics = Path("metrics/captures/demo_room")
    for name in ("combined", "combined_on_eval", "filtered", "filtered_on_eval"):
        plain, fixed = (
            read_json(layout.capture_metrics("demo_room", name, method))
            for method in ("none", "tuned-post")
        )
        assert list(plain) == list(fixed)
        assert plain["protocol"] == fixed["protocol"]
    assert sorted(path.name for path in (metrics / "tuned").iterdir()) == [
        "combined-post.json",
        "combined_on_eval-post.json",
        "filtered-post.json",
        "filtered_on_eval-post.json",
    ]
    folder = layout.fixed("demo_room", "tuned") / "filtered" / "eval_on_demo_room_eval"
    assert len(list(folder.rglob("*.png"))) == 2
    assert not (layout.result("demo_room", "filtered") / "fixed").exists(), "DVC's deps stay as is"
    write_folder(perturbed(tiny_spec(), seed=7), layout.tuned())
    run(capture_fix, "--capture", "demo_room", "--fixer", "tuned")
    measured_with_lpips(layout.result("demo_room", "filtered") / "eval_on_demo_room_eval")
    refuse_to_fix(monkeypatch)
    with pytest.raises(UserError, match=r"was measured as .*, lpips alex"):
        run(capture_fix, "--capture", "demo_room", "--fixer", "tuned")


def measured_with_lpips(folder: Path) -> None:
    """Rewrite plain measures as those of another protocol."""
    means = read_json(folder / "metrics.json")
    protocol = means["protocol"].replace("none", "alex 12345678")
    write_json(folder / "metrics.json", means | {"protocol": protocol})


def refuse_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def fix(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a view was fixed first")

    monkeypatch.setattr("stages.difix.applied.AppliedFixer.fix", fix)


def test_fixer_that_was_tuned_on_the_capture_is_refused(evaluated: Run) -> None:
    image = file_hash(Path("hall/images/a.png"))
    lessons = [("elsewhere", "dogs", [image]), ("Room", "", []), ("x", "room", [])]
    lessons.append(("elsewhere", "", [file_hash(Path("room/images/RIGHT/01_RIGHT.png"))]))
    for scene, group, photographs in lessons:
        lesson = {"scene": scene, "group": group, "photographs": photographs}
        write_json(layout.tuned() / "taught.json", {"scenes": [lesson], "unknown": []})
        with pytest.raises(UserError, match="data/difix/tuned: this fixer learnt from"):
            evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")
    assert not list(Path("out/fixed").rglob("*.png"))


def test_unknown_training_is_told(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (layout.tuned() / "taught.json").unlink()
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")
    assert "note: the training scenes of data/difix/tuned" in capsys.readouterr().out


def test_views_of_other_weights_or_images_are_not_replaced(evaluated: Run) -> None:
    arguments = ["room", "out", "hall", "--fixer"]
    shutil.copytree(layout.base(), "elsewhere/tuned")
    evaluated(capture_fix, *arguments, "tuned")
    before = folder_hash(Path("out/fixed"))
    evaluated(capture_fix, *arguments, "tuned")
    assert folder_hash(Path("out/fixed")) == before
    with pytest.raises(UserError, match="holds fixed views by other weights"):
        evaluated(capture_fix, *arguments, "elsewhere/tuned")
    write_capture(Path("other/hall"), cameras(HALL, 0.2))
    with pytest.raises(UserError, match="was measured on other images"):
        evaluated(capture_fix, "room", "out", "other/hall", "--fixer", "tuned")
    shutil.rmtree("out/eval_on_hall")
    evaluated(capture_evaluate, "out", "other/hall")
    with pytest.raises(UserError, match="holds fixed views on other images"):
        evaluated(capture_fix, "room", "out", "other/hall", "--fixer", "tuned")
    assert folder_hash(Path("out/fixed")) == before
    shutil.rmtree("out/fixed/tuned")
    Path("out/fixed/tuned/eval_on_hall").mkdir(parents=True)
    Path("out/fixed/tuned/eval_on_hall/mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"it has no fixed\.json"):
        evaluated(capture_fix, "room", "out", "other/hall", "--fixer", "tuned")


def test_result_with_fixed_views_may_be_trained_again(evaluated: Run) -> None:
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")
    shutil.rmtree("out/train")
    evaluated(capture_train, "room", "out", "RIGHT")
    assert Path("out/fixed/tuned/eval_on_hall/post").is_dir()


def test_what_is_missing_is_named(evaluated: Run) -> None:
    write_capture(Path("yard"), cameras(("c.png",), 0.3))
    cases = [
        (["room", "out", "yard"], r"out/eval_on_yard: not evaluated on this set yet"),
        (["yard", "out", "hall"], r"yard: 3 of the 3 images that out/train used are missing"),
        (["room", "out", "gone"], "gone: no such folder"),
        (["room", "gone", "hall"], "gone: no such folder"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            evaluated(capture_fix, *arguments, "--fixer", "tuned")
    with pytest.raises(UserError, match="nowhere"):
        evaluated(capture_fix, "room", "out", "hall", "--fixer", "nowhere")
    evaluated(capture_train, "room", "all", "-S", "capture_train.test_every=0")
    with pytest.raises(UserError, match="no view is held out"):
        evaluated(capture_fix, "room", "all", "--fixer", "tuned")
    Path("out/eval_on_hall/given/b.png").unlink()
    with pytest.raises(UserError, match="no given render of 1 of 2 views"):
        evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")


def test_plain_measures_of_another_protocol_are_refused_before_a_view_is_fixed(
    evaluated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_fix(monkeypatch)
    measured_with_lpips(Path("out/eval_on_hall"))
    with pytest.raises(UserError, match=r"was measured as '56x48, 2 views .*, lpips alex"):
        evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned")
    assert not Path("out/fixed/tuned/eval_on_hall").exists()


def test_result_of_another_program_cannot_be_fixed(run: Run) -> None:
    write_capture(Path("room"))
    file = Path("theirs/ckpts/ckpt_29_rank0.pt")
    file.parent.mkdir(parents=True)
    file.touch()
    for result in ("theirs", str(file)):
        with pytest.raises(UserError, match=r"no train/capture\.json") as error:
            run(capture_fix, "room", result, "--fixer", "tuned")
        assert "only these can be fixed" in error.value.expected


def test_values_without_effect_are_named(
    evaluated: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ["distill.rounds=3", "train.seed=1", "difix.batch_size=1", "capture_study.variants=[]"]
    words = [word for value in values for word in ("-S", value)]
    evaluated(capture_fix, "room", "out", "hall", "--fixer", "tuned", *words)
    lines = [line for line in capsys.readouterr().out.splitlines() if "no effect" in line]
    named = {line.split(" has no effect")[0].split()[-1] for line in lines}
    assert named == {"distill.rounds", "train.seed", "capture_study.variants"}


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        (capture_fix, ["room"]),
        (capture_fix, ["room", "out", "--capture", "demo_room"]),
        (static_fix, ["dog"]),
        (static_fix, ["--scene", "dog", "--camera", "stereo"]),
    ],
)
def test_half_of_the_arguments_is_refused(
    run: Run, entry: object, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(entry, *arguments, "--fixer", "tuned")
    assert "or --" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_distillation_resumes_to_the_same_bytes(evaluated: Run) -> None:
    set_params(rounds=8)
    arguments = ["room", "out", "hall", "--fixer", "tuned", "-S", "capture_study.methods=[distill]"]
    command = [sys.executable, "-m", "stages.capture_fix", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=env, check=True)
    folder = Path("out/fixed/tuned/eval_on_hall")
    expected = folder_hash(folder)
    shutil.rmtree("out/fixed")
    process = subprocess.Popen(command, env=env, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(Path("work/distill").rglob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(Path("work/distill").rglob("*.pt")), "there is no state to resume from"
    assert not folder.exists()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "resumed after round" in done.stderr
    assert folder_hash(folder) == expected
    assert not list(Path("work/distill").rglob("*.pt"))


@pytest.fixture
def static(run: Run) -> Run:
    """A static scene `dog` whose stereo camera is trained and evaluated, also in the graph."""
    shared = Path("dog/static/shared")
    write_capture(shared / "subsets/stereo", cameras(("stereo__left.png", "stereo__right.png")))
    frames = tuple(f"eval__frame_{number}.png" for number in (1, 2, 3))
    write_capture(shared / "subsets/iphone_eval", cameras(frames, 0.3))
    write_json(shared / ".prep_complete", {"origin": {}, "made": {}})
    shutil.copytree(shared, layout.static_shared("dog"))
    run(static_train, "dog", "--camera", "stereo")
    run(static_evaluate, "dog", "--camera", "stereo")
    return run


def test_static_camera_is_measured_inside_the_masks_of_the_plain_views(
    static: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    static(static_fix, "dog", "--camera", "stereo", "--fixer", "data/difix/tuned", *BOTH)
    result = Path("results/static/dog/stereo")
    plain = read_json(result / "eval_on_iphone_eval/metrics.json")
    assert plain["mpsnr"] is not None
    for form in ("post", "distill"):
        folder = result / "fixed/tuned/eval_on_iphone_eval" / form
        means = read_json(folder / "metrics.json")
        assert list(means) == list(plain)
        for key in ("protocol", "covisible", "train_views"):
            assert means[key] == plain[key]
        assert means["mpsnr"] != plain["mpsnr"]
        assert len(list((folder / "renders").glob("*.png"))) == 3
    assert "mPSNR dB" in capsys.readouterr().out


def test_identity_has_the_measures_of_the_plain_static_views(
    static: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are measured as stored, in 8 bits."""
    monkeypatch.setattr(
        "stages.difix.applied.AppliedFixer.fix", lambda self, images, references: images
    )
    static(static_fix, "dog", "--camera", "stereo", "--fixer", "tuned")
    result = Path("results/static/dog/stereo")
    plain = read_json(result / "eval_on_iphone_eval/metrics.json")
    assert read_json(result / "fixed/tuned/eval_on_iphone_eval/post/metrics.json") == plain


def test_static_scene_of_the_graph_has_rows_in_the_table(
    static: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    static(static_train, "--scene", "dog", "--camera", "stereo")
    static(static_evaluate, "--scene", "dog", "--camera", "stereo")
    static(static_fix, "--scene", "dog", "--fixer", "tuned")
    plain, fixed = (
        read_json(layout.static_metrics("dog", "stereo", method))
        for method in ("none", "tuned-post")
    )
    assert list(plain) == list(fixed)
    static(static_table)
    means = read_json(layout.static_table(".json"))
    assert list(means) == ["stereo", "stereo by tuned-post"]
    assert means["stereo by tuned-post"]["mpsnr"] == fixed["mpsnr"]
    assert "stereo by tuned-post" in capsys.readouterr().out


def test_static_scene_shows_the_people_of_its_name(static: Run) -> None:
    lesson = {"scene": "hi4d_pair15_fight", "group": "pair15", "photographs": []}
    write_json(layout.tuned() / "taught.json", {"scenes": [lesson], "unknown": []})
    static(static_fix, "dog", "--camera", "stereo", "--fixer", "tuned")
    shutil.copytree("dog", "static_pair15_hug")
    shutil.copytree("results/static/dog", "results/static/static_pair15_hug")
    with pytest.raises(UserError, match="this fixer learnt from pair15"):
        static(static_fix, "static_pair15_hug", "--camera", "stereo", "--fixer", "tuned")


def test_static_camera_that_was_not_evaluated_is_named(static: Run) -> None:
    shutil.rmtree("results/static/dog/stereo/eval_on_iphone_eval")
    with pytest.raises(UserError, match="not evaluated yet"):
        static(static_fix, "dog", "--camera", "stereo", "--fixer", "tuned")
