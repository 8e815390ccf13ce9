"""Entries capture_*: folders on the command line, and captures of params.yaml."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import walls
from small_capture import NAMES, cameras, write_capture

from stages import capture_calibrate, capture_evaluate, capture_train
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json, read_tsv
from stages.run.process import locks
from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians

ROOT = Path(__file__).resolve().parents[1]
QUICK = [
    "-S",
    "train.max_steps=12",
    "-S",
    "capture_train.test_every=4",
    "-S",
    "train.save_steps=[]",
]
QUICK += ["-S", "capture_train.align_steps=0", "-S", "train.eval_steps=[]"]
Run = Callable[..., None]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    return tmp_path


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call an entry's `main` with arguments."""

    def call(entry: object, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [entry.__name__, *arguments])
        entry.main()

    return call


def test_folders_are_trained_and_evaluated(
    workspace: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_capture(workspace / "room")
    write_capture(workspace / "hall", cameras(("a.png", "b.png"), 0.05))
    run(capture_train, "room", "out/room", "RIGHT", *QUICK)
    output = capsys.readouterr().out
    assert "out/room: train.eval_steps" not in output
    assert "held out: 2 views, PSNR" in output
    assert "LPIPS none" in output
    run(capture_evaluate, "out/room", "hall", "-S", "capture_evaluate.align_steps=0")
    assert "shared frame" in capsys.readouterr().out
    assert read_json(workspace / "out/room/train/capture.json")["match_string"] == "RIGHT"
    assert (workspace / "out/room/eval_on_hall/metrics.json").is_file()
    assert not (workspace / "metrics").exists(), "folders on the command line leave no metrics here"


def test_file_of_gaussians_is_evaluated_on_its_own(
    workspace: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """A PLY that was copied away, and a checkpoint in gsplat's layout; all options."""
    caplog.set_level("INFO")
    room = write_capture(workspace / "room")
    write_capture(
        workspace / "hall", cameras(("a.png", "b.png"), 0.05) | {NAMES[1]: cameras()[NAMES[1]]}
    )
    run(capture_train, "room", "out", *QUICK, "-S", "runtime.evaluate.gsplat_stats=true")
    assert (workspace / "out/stats/val_step0011.json").is_file()
    quick = ["-S", "capture_evaluate.align_steps=0"]
    run(capture_evaluate, "out", "hall", *quick)
    ours = read_json(workspace / "out/eval_on_hall/metrics.json")
    (workspace / "models").mkdir()
    shutil.copy(workspace / "out/train/point_cloud.ply", workspace / "models/room.ply")
    held_out = ["-S", "capture_evaluate.foreign.test_every=4", "--trained-on", "room"]
    run(capture_evaluate, "models/room.ply", "hall", *quick, *held_out)
    messages = " ".join(caplog.messages)
    assert "room.ply: a PLY of ours" in messages
    assert "1 of 3 images are training images of the result: LEFT/01_LEFT.png" in messages
    theirs = read_json(workspace / "models/eval_on_hall/metrics.json")
    assert theirs["psnr"] == pytest.approx(ours["psnr"], abs=1e-3)

    world = in_world(Gaussians.load(workspace / "out/train/gaussians.safetensors"))
    names = {"scales": "log_scales", "opacities": "opacity_logits"}
    keys = ("means", "quats", "scales", "opacities", "sh0", "shN")
    splats = {key: getattr(world, names.get(key, key)) for key in keys}
    (workspace / "gs/ckpts").mkdir(parents=True)
    path = workspace / "gs/ckpts/ckpt_11_rank0.pt"
    torch.save({"step": 11, "splats": splats}, path)
    wanted = "capture_evaluate.covisible=true", "runtime.evaluate.gsplat_stats=true"
    options = [word for value in wanted for word in ("-S", value)]
    antialiased = "yes" if world.antialiased else "no"
    options += ["-S", f"capture_evaluate.foreign.antialiased={antialiased}", "--output", "on/hall"]
    run(capture_evaluate, "gs", "hall", *quick, *held_out, *options)
    assert "in the world frame of room" in " ".join(caplog.messages)
    assert read_json(workspace / "on/hall/metrics.json")["psnr"] == pytest.approx(
        ours["psnr"], abs=1e-3
    )
    assert (workspace / "on/hall/stats/val_step0011.json").is_file()
    assert len(list((workspace / "on/hall/covisible").rglob("*.png"))) == 3
    assert sorted(path.name for path in (workspace / "gs").iterdir()) == ["ckpts"]
    for target in ("room", "hall/images/x"):
        with pytest.raises(UserError, match=r"no result of this command|among the images"):
            run(capture_evaluate, "gs", "hall", *quick, *held_out, "--output", target)
    assert sorted(path.name for path in room.iterdir()) == ["images", "sparse"]


def test_captures_of_params_write_results_and_metrics(workspace: Path, run: Run) -> None:
    write_capture(workspace / "data/raw/demo_room")
    write_capture(workspace / "data/raw/demo_room_eval", cameras(("a.png", "b.png"), 0.05))
    run(capture_calibrate, "--capture", "demo_room")
    for variant in ("combined", "filtered"):
        run(capture_train, "--capture", "demo_room", "--variant", variant, *QUICK)
        run(capture_evaluate, "--capture", "demo_room", "--variant", variant)
    metrics = workspace / "metrics/captures/demo_room"
    assert read_json(metrics / "calibrate.json")["registered"] == 8
    numbers = {path.stem: read_json(path) for path in metrics.glob("*.json")}
    assert [numbers[name]["trained_on"] for name in ("combined", "filtered")] == [6, 3]
    same = {numbers[name]["protocol"] for name in ("combined", "filtered")}
    assert len(same) == 1, "both variants are measured on the same views"
    assert {"combined_on_eval", "filtered_on_eval"} <= numbers.keys()
    curve = read_tsv(workspace / "metrics/plots/captures/demo_room/combined.tsv")
    assert curve[-1]["step"] == "12"
    assert (workspace / "results/demo_room/filtered/eval_on_demo_room_eval/views.tsv").is_file()


def test_second_run_into_one_folder_is_refused_at_once(
    workspace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_ENDING_S", 0.0)
    write_capture(workspace / "room")
    hold = (
        "from stages.run.process.locks import alone\n"
        "with alone(Path('out')): input(print(flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path\n{hold}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match=f"out: is being written by process {other.pid} on "):
            run(capture_train, "room", "out", *QUICK)
        assert not (workspace / "out").exists()
        other.communicate(b"\n")
    run(capture_train, "room", "out", *QUICK)


def test_images_without_a_model_get_poses_first(
    workspace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poses are estimated once: a second training reads the existing dataset."""
    walls.write_photographs(workspace / "corner", walls.cameras())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ["corner", "out", *QUICK, "-S", "capture_calibrate.lenses=one"]
    run(capture_train, *arguments)
    dataset = workspace / "out/dataset/corner"
    assert len(list((dataset / "images").iterdir())) == 5
    record = read_json(workspace / "out/train/capture.json")
    assert (record["name"], len(record["train"]), len(record["held_out"])) == ("corner", 3, 2)
    model, before = dataset / "sparse/0/images.bin", folder_hash(dataset)
    written = model.stat().st_mtime_ns
    run(capture_train, *arguments)
    assert (folder_hash(dataset), model.stat().st_mtime_ns) == (before, written)


@pytest.mark.slow
def test_photographs_alone_give_better_views_than_their_mean_colour(
    workspace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven photographs of a facade, from nothing to a measured render."""
    assets = os.environ.get("SPLATFIX_TEST_ASSETS")
    if not assets:
        pytest.skip("SPLATFIX_TEST_ASSETS is unset: the real images are not here")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    changes = ["-S", "train.max_steps=150", "-S", "train.data_factor=8"]
    changes += ["-S", "capture_calibrate.max_image_px=354"]
    run(capture_train, str(Path(assets, "data/sceaux_castle")), "out", *QUICK, *changes)
    held_out = read_json(workspace / "out/train/metrics.json")
    assert held_out["psnr"] > held_out["mean_color_psnr"] + 2


def test_variant_filtered_needs_a_match_string(workspace: Path, run: Run) -> None:
    with pytest.raises(UserError, match=r"captures\.demo_room\.match_string: empty"):
        run(
            capture_train,
            "--capture",
            "demo_room",
            "--variant",
            "filtered",
            "-S",
            "captures.demo_room.match_string=",
        )


def test_dataset_is_not_overwritten(workspace: Path, run: Run) -> None:
    write_capture(workspace / "room")
    with pytest.raises(UserError, match="exists already"):
        run(capture_calibrate, "room", "room")


def test_values_that_a_command_does_not_read_are_named(
    workspace: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_capture(workspace / "room")
    values = ["prepare.height_px=3", "capture_calibrate.seed=3", "runtime.train.workers=2"]
    values += ["train.seed=1", "train.masks=true", "capture_train.align_lr=0.1"]
    run(capture_train, "room", "out", *QUICK, *(word for value in values for word in ("-S", value)))
    lines = [line for line in capsys.readouterr().out.splitlines() if "no effect" in line]
    named = {line.split(" has no effect")[0].split()[-1] for line in lines}
    wanted = {"prepare.height_px", "capture_calibrate.seed", "runtime.train.workers", "train.masks"}
    assert wanted | {"capture_train.align_lr"} <= named
    assert not {"train.seed", "train.max_steps", "capture_train.test_every"} & named
    run(capture_evaluate, "out", "room", "-S", "train.seed=2", "-S", "capture_evaluate.nearest=1")
    lines = [line for line in capsys.readouterr().out.splitlines() if "no effect" in line]
    assert lines == ["out: command line  train.seed has no effect on this command"]
    run(
        capture_calibrate,
        "room",
        "posed",
        "-S",
        "capture_calibrate.seed=2",
        "-S",
        "vggt.image_px=28",
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "no effect" in line]
    assert len(lines) == 2, "an existing model needs neither"


@pytest.mark.parametrize("target", ["file", "file/below", "/proc/r", "room", "."])
def test_unusable_target_is_refused_before_any_work(
    target: str, workspace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for images without poses, whose estimation takes hours."""
    (workspace / "room").mkdir()
    (workspace / "room" / "a.png").touch()
    (workspace / "file").write_text("mine")
    before = folder_hash(workspace)
    for entry in (capture_train, capture_calibrate):
        with pytest.raises(UserError, match=r"fix:|new folder"):
            run(entry, "room", target)
    assert folder_hash(workspace) == before


def test_images_below_a_result_are_kept(workspace: Path, run: Run) -> None:
    """The folder of the images is that of the dataset that would be made of them."""
    image = workspace / "all" / "dataset" / "room" / "a.png"
    image.parent.mkdir(parents=True)
    image.write_text("the only copy")
    with pytest.raises(UserError, match="no dataset of the images"):
        run(capture_train, "all/dataset/room", "all")
    assert image.read_text() == "the only copy"


def test_file_in_the_place_of_a_folder_is_refused(workspace: Path, run: Run) -> None:
    (workspace / "file").touch()
    for entry, arguments in (
        (capture_train, ["file", "out"]),
        (capture_calibrate, ["file", "out"]),
        (capture_evaluate, ["file", "out"]),
        (capture_train, ["none", "out"]),
    ):
        with pytest.raises(UserError, match=r"is a file|no such folder"):
            run(entry, *arguments)
    assert not (workspace / "out").exists()


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        (capture_train, ["room"]),
        (capture_train, ["room", "out", "--capture", "demo_room"]),
        (capture_train, ["--capture", "demo_room"]),
        (capture_evaluate, ["out"]),
        (capture_evaluate, ["--capture", "demo_room"]),
        (capture_evaluate, ["out", "--output", "there"]),
        (capture_calibrate, ["room"]),
    ],
)
def test_half_of_the_arguments_is_refused(
    run: Run, entry: object, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(entry, *arguments)
    assert "or --capture" in capsys.readouterr().err
