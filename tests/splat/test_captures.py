"""Training and measuring a capture: held-out views, contents of a result, and refusals."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from small_capture import NAMES, cameras, gaussians, write_capture

from stages.quality.evaluation import Meter
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json, read_tsv, work_root, write_json
from stages.run.trainings import Trainings
from stages.scenes.cameras import rotation_from_vector
from stages.scenes.captures.config import CaptureEvaluateConfig, CaptureTrainConfig, ForeignConfig
from stages.scenes.dataset import Dataset
from stages.scenes.frames import Sim3
from stages.scenes.images import read_image, write_mask, write_png
from stages.splat.captures import claims
from stages.splat.captures import results as capture_results
from stages.splat.captures.evaluation import evaluate_result
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.trained import open_result
from stages.splat.captures.training import split
from stages.splat.config import StrategyConfig, TrainConfig, TrainRuntime
from stages.splat.gaussians import Gaussians
from stages.splat.ply import open_ply
from stages.splat.render import render
from stages.splat.training.fit import Fitted

MOVED = Sim3(2.5, rotation_from_vector([0.4, 1.9, -0.3]), np.array([7.0, -3.0, 2.0]))
CAPTURE = CaptureTrainConfig(test_every=4, align_steps=2)
EVALUATE = CaptureEvaluateConfig(align_steps=0)
CONFIG = TrainConfig(
    max_steps=60,
    sh_degree=0,
    max_gaussians=300,
    means_lr=0.004,
    scales_lr=0.02,
    sh0_lr=0.02,
    eval_steps=(),
    ply_steps=(),
    save_steps=(),
    pose_opt=False,
    backend="cpu",
    runtime=TrainRuntime(checkpoint_every=20),
    strategy=StrategyConfig(refine_start_iter=1000),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("data") / "room")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def train(data: Path, result: Path, token: str = "", config: TrainConfig = CONFIG) -> dict:
    return capture_results.train_result(
        Dataset.read(data), token, result, CAPTURE, config, Meter("cpu", note="none here")
    )[0]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATFIX_WORK", str(folder / "work"))
        return folder / "room" / "combined", train(data, folder / "room" / "combined")


@pytest.fixture
def result(trained: tuple[Path, dict], tmp_path: Path) -> Path:
    """A copy of the result that a test may damage."""
    return Path(shutil.copytree(trained[0], tmp_path / "room" / "combined"))


def test_variants_share_the_held_out_views(data: Path) -> None:
    views = Dataset.read(data).views
    combined, filtered = split(views, 4, ""), split(views, 4, "right")
    assert [view.name for view in combined.held_out] == [NAMES[0], NAMES[4]]
    assert combined.held_out == filtered.held_out
    assert [view.name for view in filtered.train] == list(NAMES[5:])
    assert len(combined.train) == 6
    assert len(split(views, 1, "").train) == len(split(views, 0, "").train) == 8


def test_match_string_is_a_whole_word_and_must_match(data: Path) -> None:
    views = Dataset.read(data).views
    with pytest.raises(UserError, match="'RIGH' matches none of 6 images"):
        split(views, 4, "RIGH")
    with pytest.raises(UserError, match="leaves none of 1 views"):
        split(views[:1], 8, "")


def test_result_has_gaussians_ply_poses_and_metrics(trained: tuple[Path, dict]) -> None:
    folder, scalars = trained[0] / "train", trained[1]
    gaussians = Gaussians.load(folder / "gaussians.safetensors")
    exported = open_ply(folder / "point_cloud.ply").gaussians
    assert len(gaussians) == len(exported) == scalars["gaussians"]
    assert (scalars["trained_on"], scalars["held_out"], scalars["views"]) == (6, 2, 2)
    assert scalars["psnr"] > scalars["mean_color_psnr"] + 3
    assert scalars["psnr_aligned"] is not None
    assert scalars["lpips"] is None
    assert scalars == read_json(folder / "metrics.json")
    rows = read_tsv(folder / "held_out.tsv")
    assert [row["image"] for row in rows] == [NAMES[0], NAMES[4]]
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(scalars["psnr"], abs=1e-5)
    assert (folder / "held_out" / "given" / NAMES[0]).is_file()
    assert (folder / "held_out" / "aligned" / NAMES[4]).is_file()


def test_poses_are_estimated_by_the_recipe_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(capture_results, "run_all", lambda commands, _: called.extend(commands))
    write_png(tmp_path / "room" / "a.png", np.zeros((8, 8, 3)))
    overrides = [Path("a recipe.yaml"), "train.max_steps=3", "vggt.device=cpu"]
    out = tmp_path / "out"
    capture_results.posed_dataset(tmp_path / "room", out, "", overrides)
    words = [str(tmp_path / "room"), str(out / "dataset" / "room"), "--recipe", "a recipe.yaml"]
    assert called[0][1:] == ["-m", "stages.capture_calibrate", *words, "-S", "vggt.device=cpu"]


def test_files_of_a_file_browser_are_ignored(data: Path, tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    claims.claim(tmp_path, data, lambda: frozenset(), "")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty, and no result"):
        claims.claim(tmp_path, data, lambda: frozenset(), "")


def test_learnt_cameras_open_in_pycolmap(trained: tuple[Path, dict]) -> None:
    model = pycolmap.Reconstruction(trained[0] / "train" / "cameras" / "sparse" / "0")
    held_out = {NAMES[0], NAMES[4]}
    assert {image.name for image in model.images.values()} == set(NAMES) - held_out
    for image in model.images.values():
        truth = cameras()[image.name].cam_from_world[:3]
        assert np.allclose(image.cam_from_world().matrix(), truth, atol=1e-5)


def test_colours_of_the_images_go_with_the_ply_of_their_result(data: Path, tmp_path: Path) -> None:
    learning = {"color_opt": True, "color_opt_lr": 0.02, "color_opt_reg": 0.0}
    poses = {"pose_opt": True, "pose_opt_lr": 1e-3}
    result = tmp_path / "room" / "combined"
    train(data, result, config=CONFIG.model_copy(update=learning | poses))
    dataset, folder = Dataset.read(data), result / "train"
    own, ply, lone = (
        open_result(path, dataset, ForeignConfig()).gaussians
        for path in (
            result,
            folder / "point_cloud.ply",
            _alone(folder / "point_cloud.ply", tmp_path),
        )
    )
    assert len(own.colors["maps"]) == 6
    for camera in cameras().values():
        one, same, without = (render(each, camera, "cpu").rgb for each in (own, ply, lone))
        assert torch.allclose(one, same, atol=2e-3)
        assert float((one - without).abs().max()) > 0.02


def _alone(path: Path, folder: Path) -> Path:
    """A copy without its record."""
    return Path(shutil.copy(path, folder / "mine.ply"))


def test_equal_inputs_give_equal_bytes(
    trained: tuple[Path, dict], data: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "again")
    for name in ("gaussians.safetensors", "point_cloud.ply", "metrics.json"):
        assert (tmp_path / "again" / "train" / name).read_bytes() == (
            trained[0] / "train" / name
        ).read_bytes()


def test_killed_run_resumes_to_the_same_bytes(
    trained: tuple[Path, dict],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from stages.splat.training.trainer import Trainer

    step = Trainer.step

    def killed(self: Trainer, number: int, index: int | None = None) -> tuple[torch.Tensor, int]:
        if number == 33:
            raise KeyboardInterrupt
        return step(self, number, index)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "result")
    assert not (tmp_path / "result" / "train").exists()
    trainings = Trainings(work_root(), str(tmp_path / "result"))
    trainings.look()
    (stopped,) = trainings.known.values()
    assert (stopped.step, stopped.is_finished) == (20, False)
    train(data, tmp_path / "result")
    trainings.look()
    (finished,) = trainings.known.values()
    assert (finished.step, finished.is_finished) == (finished.steps, True)
    measured = read_json(tmp_path / "result" / "train" / "fit.json")
    assert finished.rows["evaluations"] == measured["evaluations"]
    assert "resumed at step 20" in capsys.readouterr().err
    path = "train/gaussians.safetensors"
    assert (tmp_path / "result" / path).read_bytes() == (trained[0] / path).read_bytes()


@pytest.mark.parametrize("foreign", ["token", "dataset", "one image", "files"])
def test_another_result_is_not_overwritten(
    foreign: str, result: Path, data: Path, tmp_path: Path
) -> None:
    token = "RIGHT" if foreign == "token" else ""
    if foreign == "dataset":  # its folder has the same name
        data = write_capture(tmp_path / "other" / "room", cameras(shift=0.1))
    if foreign == "one image":
        data = Path(shutil.copytree(data, tmp_path / "other" / "room"))
        shutil.copyfile(data / "images" / NAMES[1], data / "images" / NAMES[2])
    if foreign == "files":
        shutil.rmtree(result / "train")
        (result / "thesis.tex").write_text("years of work")
    before = folder_hash(result)
    with pytest.raises(UserError, match=r"holds the result of .*room|no result of a capture") as no:
        train(data, result, token)
    assert "another folder" in str(no.value)
    assert folder_hash(result) == before


def test_the_same_images_elsewhere_may_replace_a_result(
    result: Path, data: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(data, tmp_path / "hall"))
    quicker = CONFIG.model_copy(update={"max_steps": 5})
    train(moved, result, config=quicker)
    assert CaptureRecord.read(result / "train").name == "hall"


def test_result_of_an_older_version_is_known_by_the_images_it_used(
    result: Path, data: Path, tmp_path: Path
) -> None:
    record = read_json(result / "train" / "capture.json")
    del record["photographs"]
    write_json(result / "train" / "capture.json", record)
    dataset = Dataset.read(data)
    claims.claim(result, data, lambda: dataset.image_hashes, "")
    with pytest.raises(UserError, match="holds the result of a dataset room; the images of"):
        claims.claim(result, data, lambda: frozenset({"other"}), "")


def no_hashes() -> frozenset[str]:
    raise AssertionError("no image needs to be read")


def test_leftovers_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "room" / ".train.part").mkdir(parents=True)
    (tmp_path / "room" / "dataset").mkdir()
    claims.claim(tmp_path / "room", tmp_path, no_hashes, "")


def test_result_that_dvc_removed_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "room" / "eval_on_hall").mkdir(parents=True)
    claims.claim(tmp_path / "room", tmp_path, no_hashes, "")


def masked(data: Path, folder: Path, cover: str = "half", only: int = 99) -> Path:
    """A copy of a dataset with masks as COLMAP names them, of the left half or of nothing."""
    shutil.copytree(data, folder)
    kept = np.zeros((48, 56), bool)
    kept[:, : 28 if cover == "half" else 0] = True
    for name in NAMES[:only]:
        write_mask(folder / "masks" / f"{name}.png", kept)
    return folder


def test_masks_limit_what_is_learnt(trained: tuple[Path, dict], data: Path, tmp_path: Path) -> None:
    """Pixels outside are not learnt; whole images are measured."""
    config = CONFIG.model_copy(update={"masks": True})
    scalars = train(masked(data, tmp_path / "room"), tmp_path / "result", config=config)
    assert scalars["psnr"] < trained[1]["psnr"] - 0.5
    assert scalars["protocol"] == trained[1]["protocol"]
    renders = [
        read_image(folder / "train" / "held_out" / "given" / NAMES[4])
        for folder in (tmp_path / "result", trained[0])
    ]
    truth = read_image(data / "images" / NAMES[4])
    left, right = (
        [float(np.abs(image[:, half] - truth[:, half]).mean()) for image in renders]
        for half in (slice(0, 24), slice(32, 56))
    )
    assert right[0] - right[1] > 2 * (left[0] - left[1]), "the right half is not learnt"


def test_mask_that_keeps_nothing_is_refused(data: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"masks": True})
    folder = masked(data, tmp_path / "room", cover="nothing")
    with pytest.raises(UserError, match="keeps no pixel"):
        train(folder, tmp_path / "result", config=config)
    train(folder, tmp_path / "result", config=CONFIG.model_copy(update={"max_steps": 2}))


@pytest.mark.parametrize(("only", "message"), [(0, "none of the 6"), (6, "2 of the 6"), (99, "")])
def test_missing_masks_are_reported(
    only: int, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.model_copy(update={"masks": True, "max_steps": 2})
    train(masked(data, tmp_path / "room", only=only), tmp_path / "result", config=config)
    lines = [line for line in capsys.readouterr().out.splitlines() if "train.masks" in line]
    assert len(lines) == bool(message)
    assert all(f"train.masks has no effect: {message} images of room" in line for line in lines)


def evaluate(result: Path, folder: Path, config: CaptureEvaluateConfig = EVALUATE) -> dict:
    meter = Meter("cpu", note="none here")
    return evaluate_result(result, Dataset.read(folder), config, meter)


EVAL_NAMES = ("a.png", "b.png", "c.png")


def test_eval_set_in_the_same_frame_needs_no_alignment(result: Path, tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "hall", cameras(EVAL_NAMES, 0.05))
    before = folder_hash(folder)
    scalars = evaluate(result, folder)
    assert scalars["frame"].startswith("shared frame")
    assert scalars["psnr"] > scalars["mean_color_psnr"] + 3
    assert len(read_tsv(result / "eval_on_hall" / "views.tsv")) == 3
    assert folder_hash(folder) == before
    assert (result / "train" / "gaussians.safetensors").is_file()


def test_moved_eval_set_gives_the_same_numbers(result: Path, data: Path, tmp_path: Path) -> None:
    """Two images that it shares with the capture give its frame."""
    both = cameras(EVAL_NAMES, 0.05) | {name: cameras()[name] for name in (NAMES[1], NAMES[6])}
    plain = evaluate(result, write_capture(tmp_path / "plain", both))
    moved = evaluate(result, write_capture(tmp_path / "moved", both, MOVED))
    assert plain["frame"].startswith("shared frame: 2 images")
    assert moved["frame"] == "similarity from 2 images in both"
    assert moved["psnr"] == pytest.approx(plain["psnr"], abs=0.01)
    frame = Sim3.from_dict(read_json(result / "eval_on_moved" / "frame.json")["train_from_eval"])
    assert np.allclose(frame.compose(MOVED).matrix, np.eye(4), atol=1e-6)


def test_eval_set_of_another_frame_is_refused(result: Path, tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "hall", cameras(EVAL_NAMES, 0.05), MOVED)
    with pytest.raises(UserError, match="not in the frame of the capture"):
        evaluate(result, folder)
    assert not (result / "eval_on_hall").exists()


def test_wrong_frame_set_by_the_user_gives_a_warning(
    result: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_capture(tmp_path / "hall", cameras(EVAL_NAMES, 0.05), MOVED)
    evaluate(result, folder, EVALUATE.model_copy(update={"frame": "shared"}))
    (message,) = caplog.messages
    assert "the poses may be wrong or of another frame" in message
    assert message.startswith(f"{result / 'eval_on_hall'}: PSNR")


@pytest.mark.parametrize("there", ["other images", "files", "the same"])
def test_evaluation_is_only_replaced_by_one_on_the_same_images(
    there: str, result: Path, tmp_path: Path
) -> None:
    folder = result / "eval_on_hall"
    if there == "files":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        evaluate(result, write_capture(tmp_path / "a" / "hall", cameras(EVAL_NAMES, 0.05)))
    shift = 0.05 if there == "the same" else 0.08
    again = write_capture(tmp_path / "b" / "hall", cameras(EVAL_NAMES, shift))
    before = folder_hash(folder)
    if there == "the same":
        evaluate(result, again)
    else:
        with pytest.raises(UserError, match=r"measured on other images|no result of this"):
            evaluate(result, again)
    assert folder_hash(folder) == before


def test_only_the_nearest_views_are_measured(result: Path, tmp_path: Path) -> None:
    placed = cameras(EVAL_NAMES, 0.05)
    far = placed["b.png"].cam_from_world.copy()
    far[2, 3] += 3
    placed["b.png"] = placed["b.png"].moved(far)
    folder = write_capture(tmp_path / "hall", placed)
    evaluate(result, folder, EVALUATE.model_copy(update={"nearest": 2}))
    rows = read_tsv(result / "eval_on_hall" / "views.tsv")
    assert [row["image"] for row in rows] == ["a.png", "c.png"]


def test_only_images_with_the_word_are_measured(result: Path, tmp_path: Path) -> None:
    """The others still register the set; `nearest` selects among those with the word."""
    both = cameras(("a_L.png", "a_R.png", "b_L.png", "b_R.png"), 0.05)
    both |= {name: cameras()[name] for name in (NAMES[1], NAMES[6])}
    folder = write_capture(tmp_path / "hall", both, MOVED)
    words = EVALUATE.model_copy(update={"match_string": "r"})
    assert evaluate(result, folder, words)["frame"] == "similarity from 2 images in both"
    rows = read_tsv(result / "eval_on_hall" / "views.tsv")
    assert [row["image"] for row in rows] == ["a_R.png", "b_R.png"]
    evaluate(result, folder, words.model_copy(update={"nearest": 1}))
    (row,) = read_tsv(result / "eval_on_hall" / "views.tsv")
    assert row["image"] in {"a_R.png", "b_R.png"}
    with pytest.raises(UserError, match=r"match_string: 'LEFTY' matches none of 6 images"):
        evaluate(result, folder, EVALUATE.model_copy(update={"match_string": "LEFTY"}))


def test_images_may_be_shrunk(data: Path, tmp_path: Path) -> None:
    scalars = train(data, tmp_path / "small", config=CONFIG.model_copy(update={"data_factor": 2}))
    assert scalars["protocol"].startswith("28x24")
    assert CaptureRecord.read(tmp_path / "small" / "train").data_factor == 2


def test_evaluation_needs_a_trained_capture(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder that capture_train wrote"):
        evaluate(tmp_path, data)


def test_fitted_names_its_cameras_with_a_suffix(trained: tuple[Path, dict], tmp_path: Path) -> None:
    gaussians = Gaussians.load(trained[0] / "train" / "gaussians.safetensors")
    placed = [replace(one, name=f"cam{k}") for k, one in enumerate(cameras().values())]
    Fitted(gaussians, placed, [], [], False).write(tmp_path, ply=False, suffix=".png")
    model = pycolmap.Reconstruction(tmp_path / "cameras" / "sparse" / "0")
    assert sorted(image.name for image in model.images.values())[0] == "cam0.png"
    assert not (tmp_path / "point_cloud.ply").exists()


def test_alpha_is_composited_in_training_and_measuring(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blobs with transparency around them: images and renders have the same background."""
    room = Path(shutil.copytree(data, tmp_path / "cut" / "room"))
    truth = gaussians()
    for name, camera in cameras().items():
        rendering = render(truth, camera, "cpu")
        levels = np.rint(255 * np.dstack([rendering.rgb.numpy(), rendering.alpha.numpy()]))
        Image.fromarray(levels.astype(np.uint8)).save(room / "images" / name)
    config = CONFIG.model_copy(update={"max_steps": 1, "background": (1.0, 1.0, 1.0)})
    scalars = train(room, tmp_path / "cut" / "out", config=config)
    told = (
        "room: 8 of 8 images have alpha; they are composited over train.background, [1.0, 1.0, 1.0]"
    )
    assert capsys.readouterr().err.splitlines().count(told) == 1
    views = Dataset.read(room).views
    white, black = (np.mean([v.image(b)[0].mean() for v in views]) for b in ((1, 1, 1), (0, 0, 0)))
    assert white > black + 0.2
    assert CaptureRecord.read(tmp_path / "cut" / "out" / "train").mean_color.mean() > black + 0.2
    # A white background against black images would be below.
    assert scalars["psnr"] > 8


def test_result_inside_images_is_not_read_as_images(data: Path, tmp_path: Path) -> None:
    room = Path(shutil.copytree(data, tmp_path / "room"))
    counts = []
    for _ in range(2):
        counts.append(train(room, room / "images" / "out"))
    assert [scalars["trained_on"] + scalars["held_out"] for scalars in counts] == [8, 8]
    assert [scalars["without_pose"] for scalars in counts] == [0, 0]


SHORT = CONFIG.model_copy(update={"pose_opt": True, "max_steps": 30})


@pytest.fixture(scope="module")
def at_origin(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list]:
    """Scalars and evaluations of the room at the origin."""
    folder = tmp_path_factory.mktemp("near")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATFIX_WORK", str(folder / "work"))
        scalars = train(data, folder / "room", config=SHORT)
    return scalars, read_json(folder / "room" / "train" / "fit.json")["evaluations"]


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 5.2e6), (1e-7, 0.0), (1e4, 1e7)])
def test_capture_in_map_coordinates_trains_as_one_at_the_origin(
    at_origin: tuple[dict, list], tmp_path: Path, unit: float, offset: float
) -> None:
    """The same room in another world: the same numbers, cameras and Gaussians."""
    frame = Sim3(unit, rotation_from_vector([0.3, 0.2, 1.1]), offset * np.array([0.08, 1, -0.2]))
    scalars = train(write_capture(tmp_path / "far", frame=frame), tmp_path / "r", config=SHORT)
    near, before = at_origin
    assert near["psnr"] > near["mean_color_psnr"]
    assert scalars["psnr"] == pytest.approx(near["psnr"], abs=0.05)
    rows = read_json(tmp_path / "r" / "train" / "fit.json")["evaluations"]
    for one, other in zip(rows, before, strict=True):
        assert one["psnr"] == pytest.approx(other["psnr"], abs=0.05)
    # The learnt cameras are in the world of the dataset.
    learnt = pycolmap.Reconstruction(tmp_path / "r" / "train" / "cameras" / "sparse" / "0")
    true = {name: frame.apply_camera(camera) for name, camera in cameras().items()}
    for image in learnt.images.values():
        gap = image.projection_center() - true[image.name].centre
        assert np.linalg.norm(gap) < 0.02 * unit


def test_result_in_map_coordinates_is_measured_on_another_set(tmp_path: Path) -> None:
    frame = Sim3(1e-7, rotation_from_vector([0.3, 0.2, 1.1]), np.array([4e-3, 0, 1e-3]))
    capture = write_capture(tmp_path / "room", frame=frame)
    scalars = train(capture, tmp_path / "r")
    names = tuple(f"eval/{k}.png" for k in range(8))
    other = write_capture(tmp_path / "other", cameras(names, 0.02), frame)
    scalars_of_other = evaluate_result(
        tmp_path / "r", Dataset.read(other), EVALUATE, Meter("cpu", note="none here")
    )
    assert scalars_of_other["psnr"] > scalars["psnr"] - 1


def test_trained_capture_survives_a_failure_to_measure_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no measure")

    config = CONFIG.model_copy(update={"max_steps": 4})
    with monkeypatch.context() as patch:
        patch.setattr(capture_results, "measure", failing)
        with pytest.raises(RuntimeError, match="no measure"):
            train(data, tmp_path / "room" / "combined", config=config)
    folder = tmp_path / "room" / "combined" / "train"
    before = (folder / "gaussians.safetensors").read_bytes()
    assert CaptureRecord.read(folder).name == "room"
    assert not (folder / "metrics.json").exists()
    train(data, tmp_path / "room" / "combined", config=config)
    assert (folder / "gaussians.safetensors").read_bytes() == before
    assert (folder / "metrics.json").is_file()


def test_held_out_views_too_small_are_refused_before_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_results, "train_capture", None)
    with pytest.raises(UserError, match=r"6x5 px, and 1 more view of less than 6 px"):
        train(data, tmp_path / "r", config=CONFIG.model_copy(update={"data_factor": 10}))


def test_images_that_do_not_fit_into_memory_are_refused_unread(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.run.process.memory.available_bytes", lambda: 200_000)
    with pytest.raises(UserError, match=r"train\.data_factor: 8 images of up to 56x48 px"):
        train(data, tmp_path / "r")
