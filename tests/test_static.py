"""A small embedded static scene, from its images to masked metrics."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from stages.quality.evaluation import Meter
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_tsv
from stages.scenes.cameras import Camera, rigid, rotation_from_vector
from stages.scenes.captures.config import CaptureEvaluateConfig
from stages.scenes.dataset import Dataset
from stages.scenes.demo.static_scene import write_static_scene
from stages.scenes.images import image_size, read_mask, write_mask, write_png
from stages.scenes.poses.colmap_rigs import read_rig_model
from stages.scenes.static.alignment import NORMALIZATION, read_alignment
from stages.scenes.static.config import StaticConfig, StaticDemoConfig, StaticRuntime
from stages.scenes.static.pose_errors import read_true_cameras
from stages.scenes.static.prepare import prepare
from stages.scenes.static.shared_folder import SharedFolder
from stages.splat.captures.evaluated import eval_frames
from stages.splat.captures.evaluation import evaluate_result
from stages.splat.captures.static_evaluation import evaluate_static
from stages.splat.captures.static_training import check_trained, train_static
from stages.splat.config import StrategyConfig, TrainConfig
from stages.splat.views.covisible import covisibility_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("static")]

KINDS = ("monocular", "iphone", "stereo", "lightfield", "iphone_eval")
STATIC = StaticConfig(
    lf_inner=1, peak_threshold=0.003, ratio_test=0.85, max_reprojection_error_px=2.0
)
TRAIN = TrainConfig(
    backend="cpu",
    max_steps=40,
    eval_steps=(),
    ply_steps=(),
    save_steps=(),
    max_gaussians=1500,
    sh_degree=0,
    means_lr=0.004,
    scales_lr=0.02,
    strategy=StrategyConfig(refine_start_iter=1000),
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images: static/ of a scene."""
    root = tmp_path_factory.mktemp("dog")
    config = StaticDemoConfig(lightfield_side=5, eval_frames=4, samples=1)
    write_static_scene("static_pair02_talk", config, root)
    return root / "static"


@pytest.fixture(scope="module")
def prepared(raw: Path) -> tuple[SharedFolder, dict]:
    """The scene prepared beside its images."""
    metrics, rebuilt = prepare(raw, raw / "shared", STATIC)
    assert rebuilt
    return SharedFolder(raw / "shared"), metrics


def test_shared_folder_is_complete(prepared: tuple[SharedFolder, dict]) -> None:
    shared, metrics = prepared
    names = {path.relative_to(shared.folder).as_posix() for path in shared.folder.rglob("*")}
    wanted = {".prep_complete", "metadata/summary.json", "metadata/mapping.json", "sparse/0"}
    wanted |= {f"subsets/{kind}/{part}" for kind in KINDS for part in ("images", "sparse/0")}
    wanted |= {f"splits/{kind}.txt" for kind in KINDS}
    wanted |= {"images/mono__wide.png", "images/stereo__left.png", "images/lf__01_03.png"}
    assert wanted <= names
    assert "images/lf__00_00.png" not in names, "an outer ring"
    assert metrics["registered"] == metrics["images"] == 1 + 3 + 2 + 9 + 4
    assert (shared.folder / "splits" / "stereo.txt").read_text().split() == [
        "stereo__left.png",
        "stereo__right.png",
    ]


def test_every_kind_registers_near_the_truth(prepared: tuple[SharedFolder, dict]) -> None:
    _, metrics = prepared
    for kind in KINDS:
        assert metrics[f"{kind}_rotation_deg"] < 1
        assert metrics[f"{kind}_centre_percent"] < 1


def test_subsets_are_models_of_one_world(prepared: tuple[SharedFolder, dict]) -> None:
    shared, _ = prepared
    whole, structure = read_rig_model(shared.folder / "sparse" / "0")
    everywhere = {tuple(point) for point in structure.points}
    for kind in KINDS:
        model = pycolmap.Reconstruction(shared.subset(kind) / "sparse" / "0")
        split = (shared.folder / "splits" / f"{kind}.txt").read_text().split()
        assert sorted(image.name for image in model.images.values()) == sorted(split)
        assert len(model.points3D) > 50
        assert model.compute_mean_reprojection_error() < 1
        for image in model.images.values():
            assert (shared.subset(kind) / "images" / image.name).is_file()
            camera = whole[image.name]
            assert image.cam_from_world().matrix() == pytest.approx(camera.cam_from_world[:3])
            # Points of the subset are observed where the whole model's camera projects them.
            observed = [p for p in image.points2D if p.has_point3D()]
            points = np.array([model.points3D[p.point3D_id].xyz for p in observed])
            pixels = np.array([p.xy for p in observed])
            assert np.median(np.abs(camera.project(points)[0] - pixels)) < 0.5
            assert {tuple(point) for point in points} <= everywhere


def test_rigs_are_in_the_model(prepared: tuple[SharedFolder, dict]) -> None:
    shared, _ = prepared
    model = pycolmap.Reconstruction(shared.folder / "sparse" / "0")
    assert sorted(len(rig.sensor_ids()) for rig in model.rigs.values())[-2:] == [2, 9]
    cameras, _ = read_rig_model(shared.folder / "sparse" / "0")
    row = [cameras[f"lf__02_0{column}.png"].centre for column in (1, 2, 3)]
    assert np.diff(row, axis=0)[0] == pytest.approx(np.diff(row, axis=0)[1], abs=1e-9)


def test_unchanged_scene_is_kept_and_a_damaged_or_changed_one_is_rebuilt(
    raw: Path, prepared: tuple[SharedFolder, dict], tmp_path: Path
) -> None:
    shared, metrics = prepared
    marker = shared.folder / ".prep_complete"
    before = marker.stat().st_mtime_ns
    assert prepare(raw, shared.folder, STATIC) == (metrics, False)
    assert marker.stat().st_mtime_ns == before
    shutil.copytree(raw, tmp_path / "static")
    copied = tmp_path / "static" / "shared"
    sooner = StaticConfig(**{**STATIC.model_dump(), "skip_vggt": True})
    assert prepare(tmp_path / "static", copied, sooner)[1], "another method"
    assert not prepare(tmp_path / "static", copied, sooner)[1]
    (copied / "splits" / "stereo.txt").write_text("damage")
    assert prepare(tmp_path / "static", copied, sooner)[1], "a file was damaged"
    forced = StaticConfig(**{**sooner.model_dump(), "runtime": StaticRuntime(force=True)})
    assert prepare(tmp_path / "static", copied, forced)[1]
    frame = tmp_path / "static" / "iphone_eval" / "frame_00001.png"
    shutil.copyfile(frame.with_name("frame_00002.png"), frame)
    assert prepare(tmp_path / "static", copied, sooner)[1], "an image changed"


def test_errors_leave_the_old_preparation(raw: Path, prepared: tuple[SharedFolder, dict]) -> None:
    shared, _ = prepared
    right, aside = raw / "stereo" / "right.png", raw.parent / "right.png"
    right.rename(aside)
    try:
        with pytest.raises(UserError, match="no right half"):
            prepare(raw, shared.folder, STATIC)
    finally:
        aside.rename(right)
    assert not prepare(raw, shared.folder, STATIC)[1], "the old preparation is complete"


def test_flat_images_are_not_registered(tmp_path: Path) -> None:
    names = ("monocular/a.png", "iphone_eval/b.png", "iphone_eval/c.png")
    for name, shade in zip(names, (0.2, 0.5, 0.8), strict=True):
        write_png(tmp_path / "static" / name, np.full((60, 80, 3), shade, np.float32))
    config = StaticConfig(cameras=("monocular",))
    with pytest.raises(UserError, match="0 of 3 images registered; not mono__a"):
        prepare(tmp_path / "static", tmp_path / "static" / "shared", config)
    assert not (tmp_path / "static" / "shared").exists()
    for stage in ({"skip_vggt": True}, {"vggt_stage": "ba"}):
        config = StaticConfig(cameras=("monocular",), **stage)
        with pytest.raises(UserError, match="no sparse model to start from"):
            prepare(tmp_path / "static", tmp_path / "out", config)


def approximate(truth: dict[str, Camera]) -> dict[str, Camera]:
    """Cameras as a network might predict them: half a degree and a few centimetres off."""
    rng = np.random.default_rng(3)
    cameras = {}
    for name, camera in truth.items():
        rotation = rotation_from_vector(np.radians(0.5) * rng.standard_normal(3))
        error = rigid(rotation, 0.02 * rng.standard_normal(3))
        cameras[name] = camera.moved(error @ camera.cam_from_world)
    return cameras


def test_predicted_poses_are_adjusted_and_an_archive_gives_metres(
    raw: Path, tmp_path: Path
) -> None:
    start = approximate(read_true_cameras(raw / "truth.json"))
    step_m = 0.012
    lens = {"focalLength": step_m * 10 * 2.0, "fNumber": 2.0}
    devices = {"lens": lens, "mla": {"lensPitch": 1e-5}, "sensor": {"pixelPitch": 1e-6}}
    texts = {
        "cal_file_manifest.json": {"calibrationFiles": [{"hash": "a", "name": "M1.GCT"}]},
        "M1.TXT": {"devices": devices},
    }
    (tmp_path / "B1").mkdir()
    for name, value in texts.items():
        (tmp_path / "B1" / name).write_text(json.dumps(value))
    with tarfile.open(tmp_path / "caldata.tar", "w") as archive:
        archive.add(tmp_path / "B1", "B1")
    config = replace_static(lf_calib=str(tmp_path / "caldata.tar"))
    metrics, _ = prepare(raw, tmp_path / "both", config, lambda images: start)
    assert metrics["iphone_eval_rotation_deg"] < 0.3
    assert metrics["iphone_eval_centre_percent"] < 1
    summary = json.loads((tmp_path / "both" / "metadata" / "summary.json").read_text())
    assert summary["method"] == "VGGT, bundle adjustment"
    assert summary["lightfield"]["serial"] == "B1"
    assert np.mean(np.abs(summary["lightfield"]["step"])) == pytest.approx(step_m, rel=1e-3)
    cameras, _ = read_rig_model(tmp_path / "both" / "sparse" / "0")
    truth = read_true_cameras(raw / "truth.json")
    names = ("eval__frame_00001.png", "eval__frame_00004.png")
    estimated, true = (
        np.linalg.norm(np.subtract(*(c[n].centre for n in names))) for c in (cameras, truth)
    )
    assert estimated == pytest.approx(true, rel=0.05), "the world is in metres"


def test_predicted_poses_are_kept_without_adjustment(raw: Path, tmp_path: Path) -> None:
    start = approximate(read_true_cameras(raw / "truth.json"))
    prepare(raw, tmp_path / "alone", replace_static(vggt_stage="vggt"), lambda images: start)
    cameras, _ = read_rig_model(tmp_path / "alone" / "sparse" / "0")
    for name in ("iphone__tele.png", "eval__frame_00002.png"):
        assert cameras[name].cam_from_world == pytest.approx(start[name].cam_from_world)


def test_wrong_predictions_are_left_out_or_not_taken_silently(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = read_true_cameras(raw / "truth.json")
    start = approximate(truth)
    wrong = "iphone__tele.png"
    away = rigid(rotation_from_vector(np.radians(25) * np.array([0, 1.0, 0])), [0, 0, 0])
    start[wrong] = start[wrong].moved(away @ start[wrong].cam_from_world)
    with pytest.raises(UserError, match=f"{wrong} .*verified matches contradict its pose"):
        prepare(raw, tmp_path / "all", STATIC, lambda images: start)
    config = replace_static(min_registered=0.8)
    metrics, _ = prepare(raw, tmp_path / "most", config, lambda images: start)
    assert metrics["registered"] == metrics["images"] - 1
    assert f"{wrong} is left out" in caplog.text
    for kind in KINDS:
        assert metrics[f"{kind}_rotation_deg"] < 0.3
        assert metrics[f"{kind}_centre_percent"] < 1


def replace_static(**values: object) -> StaticConfig:
    return StaticConfig(**{**STATIC.model_dump(), **values})


@pytest.fixture(scope="module")
def trained(prepared: tuple[SharedFolder, dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result folder of the stereo camera."""
    shared, _ = prepared
    result = tmp_path_factory.mktemp("results") / "stereo"
    with pytest.raises(UserError, match="nothing is trained yet"):
        check_trained(result)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATFIX_WORK", str(result.parent / "work"))
        fitted = train_static(shared, "stereo", STATIC, TRAIN, result, "dog.stereo")
    assert [camera.name for camera in fitted.cameras] == ["stereo__left.png", "stereo__right.png"]
    check_trained(result)
    return result


METER = Meter("cpu")


def test_evaluation_measures_covisible_pixels(
    prepared: tuple[SharedFolder, dict], trained: Path
) -> None:
    shared, _ = prepared
    rows, means = evaluate_static(shared, "stereo", STATIC, trained, METER)
    assert [row["image"] for row in rows] == [f"eval__frame_0000{k}.png" for k in (1, 2, 3, 4)]
    assert means["views"] == 4
    assert means["train_views"] == 2
    assert 0.1 < means["covisible"] < 0.95
    assert means["mpsnr"] > means["psnr"]
    assert "covisible by depth within 5%" in means["protocol"]
    folder = trained / "eval_on_iphone_eval"
    assert json.loads((folder / "metrics.json").read_text()) == means
    assert len(list((folder / "renders").glob("*.png"))) == 4
    alignment = read_alignment(shared.alignment("stereo"))
    base, support = (alignment.base_transform.astype(float), alignment.support_transform)
    assert alignment.align_transform == pytest.approx(base @ np.linalg.inv(support), abs=1e-4)
    half, _ = evaluate_static(shared, "stereo", replace_static(eval_test_every=2), trained, METER)
    assert [row["image"] for row in half] == [f"eval__frame_0000{k}.png" for k in (1, 3)]
    assert [row["mpsnr"] for row in half] == [row["mpsnr"] for row in rows[::2]]


def test_masks_and_alignment_are_kept_and_a_missing_mask_is_remade(
    prepared: tuple[SharedFolder, dict], trained: Path
) -> None:
    shared, _ = prepared
    evaluate_static(shared, "stereo", STATIC, trained, METER)
    masks = sorted(shared.masks("stereo").rglob("*.png"))
    assert [mask.parent.relative_to(shared.folder).as_posix() for mask in masks] == [
        "covisible/stereo/1x/val"
    ] * 4
    kept = [*masks, shared.alignment("stereo")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    content = read_mask(masks[2])
    masks[2].unlink()
    rows, _ = evaluate_static(shared, "stereo", STATIC, trained, METER)
    after = {path: path.stat().st_mtime_ns for path in kept}
    assert {path for path in kept if before[path] != after[path]} == {masks[2]}
    assert np.array_equal(read_mask(masks[2]), content)
    stricter = replace_static(covi_depth_tolerance=0.001)
    assert evaluate_static(shared, "stereo", stricter, trained, METER)[1]["covisible"] < np.mean(
        [row["covisible"] for row in rows]
    )
    chunked = replace_static(runtime=StaticRuntime(covi_chunk=1, covi_micro_chunk=1))
    again, _ = evaluate_static(shared, "stereo", chunked, trained, METER)
    assert again == rows


def test_result_of_a_static_camera_is_evaluated_on_any_dataset(
    prepared: tuple[SharedFolder, dict], trained: Path, tmp_path: Path
) -> None:
    rows, means = evaluate_static(prepared[0], "stereo", STATIC, trained, METER)
    frames = Dataset.read(prepared[0].subset("iphone_eval"))
    config = CaptureEvaluateConfig(align_steps=0)
    rule = covisibility_of(STATIC)
    with pytest.raises(UserError, match=r"eval_on_iphone_eval: is not empty"):
        evaluate_result(trained, frames, config, METER)
    scalars = evaluate_result(
        trained, frames, config, METER, output=tmp_path / "out", covisibility=rule
    )
    for key in ("psnr", "mpsnr", "ssim", "mssim", "covisible"):
        assert scalars[key] == pytest.approx(means[key], abs=0.02), "but for 8 bits"
    assert scalars["views"] == len(rows)


def test_metrics_may_be_written_as_gsplats_trainer_does(
    prepared: tuple[SharedFolder, dict], trained: Path
) -> None:
    meter = Meter("cpu", gsplat_stats=True)
    _, means = evaluate_static(prepared[0], "stereo", STATIC, trained, meter)
    stats = json.loads((trained / "eval_on_iphone_eval/stats/val_step0039.json").read_text())
    masked = {"mpsnr", "mssim"}
    assert stats.keys() == {"psnr", "ssim", "ellipse_time", "num_GS"} | masked
    assert all(stats[key] == means[key] for key in masked)
    evaluate_static(prepared[0], "stereo", STATIC, trained, METER)
    assert not (trained / "eval_on_iphone_eval/stats").exists(), "on request alone"


def test_only_the_nearest_eval_frames_are_measured(
    prepared: tuple[SharedFolder, dict], trained: Path
) -> None:
    shared, _ = prepared
    rows, _ = evaluate_static(shared, "stereo", replace_static(nearest_eval=2), trained, METER)
    named = read_tsv(trained / "eval_on_iphone_eval" / "views.tsv")
    assert [row["image"] for row in named] == [row["image"] for row in rows]
    assert float(named[0]["mpsnr"]) == pytest.approx(rows[0]["mpsnr"])
    cameras, _ = read_rig_model(shared.folder / "sparse" / "0")
    eyes = [cameras[f"stereo__{side}.png"].centre for side in ("left", "right")]
    frames = [name for name in cameras if name.startswith("eval__")]
    distance = {n: min(np.linalg.norm(cameras[n].centre - eye) for eye in eyes) for n in frames}
    assert {row["image"] for row in rows} == set(sorted(frames, key=distance.get)[:2])


@pytest.fixture
def foreign(prepared: tuple[SharedFolder, dict], trained: Path, tmp_path: Path) -> SharedFolder:
    """A copy of the scene with another program's masks of three of the four frames."""
    evaluate_static(prepared[0], "stereo", STATIC, trained, METER)
    shared = SharedFolder(Path(shutil.copytree(prepared[0].folder, tmp_path / "shared")))
    (shared.masks("stereo") / "masks.json").unlink()
    for mask in shared.masks("stereo").rglob("*.png"):
        width, height = image_size(mask)
        left = np.tile(np.arange(width) < width // 2, (height, 1))
        write_mask(mask, left)
    shared.mask("stereo", "eval__frame_00004.png").unlink()
    shared.alignment("stereo").write_bytes(b"of another program")
    return shared


def test_masks_and_alignment_of_another_program_are_used_and_kept(
    foreign: SharedFolder, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = folder_hash(foreign.folder)
    rows, means = evaluate_static(foreign, "stereo", STATIC, trained, METER)
    assert [row["covisible"] for row in rows[:3]] == [0.5] * 3
    assert 0 < rows[3]["covisible"] < 0.95
    assert (
        "covisible by masks of another program for 3 of 4 views, else by depth within 5%"
        in means["protocol"]
    )
    views = eval_frames(foreign, "stereo", STATIC, trained)
    assert views.masks in means["protocol"]
    used = [views.mask(view, None) for view in views.views]
    assert [round(float(mask.mean()), 5) for mask in used] == [row["covisible"] for row in rows]
    assert folder_hash(foreign.folder) == before
    messages = " ".join(caplog.messages)
    assert "3 masks of another program, used as they are; 1 more are computed" in messages
    assert (
        "stereo_to_eval.npz: not an alignment (pickled objects, which are never loaded), kept;"
        in (messages)
    )


def test_rebuilding_replaces_the_masks_of_another_program(
    foreign: SharedFolder, prepared: tuple[SharedFolder, dict], trained: Path
) -> None:
    ours, _ = evaluate_static(prepared[0], "stereo", STATIC, trained, METER)
    anew = replace_static(runtime=StaticRuntime(rebuild_covisible=True))
    rows, means = evaluate_static(foreign, "stereo", anew, trained, METER)
    assert rows == ours
    assert "covisible by depth within 5%" in means["protocol"]
    assert read_alignment(foreign.alignment("stereo"))
    mask = foreign.mask("stereo", "eval__frame_00001.png")
    written = mask.stat().st_mtime_ns
    assert evaluate_static(foreign, "stereo", STATIC, trained, METER)[0] == ours
    assert mask.stat().st_mtime_ns == written, "the masks are ours now, and valid"
    evaluate_static(foreign, "stereo", anew, trained, METER)
    assert mask.stat().st_mtime_ns > written


@pytest.mark.parametrize("choice", [{"nearest_eval": 1}, {"eval_test_every": 3}])
def test_rebuilding_some_masks_leaves_none_of_another_program(
    foreign: SharedFolder,
    prepared: tuple[SharedFolder, dict],
    trained: Path,
    choice: dict[str, int],
) -> None:
    ours, _ = evaluate_static(prepared[0], "stereo", STATIC, trained, METER)
    anew = replace_static(runtime=StaticRuntime(rebuild_covisible=True), **choice)
    evaluate_static(foreign, "stereo", anew, trained, METER)
    assert evaluate_static(foreign, "stereo", STATIC, trained, METER)[0] == ours


def test_masks_of_another_program_may_be_of_other_frames(
    foreign: SharedFolder, trained: Path
) -> None:
    one = replace_static(nearest_eval=1)
    (row,), _ = evaluate_static(foreign, "stereo", one, trained, METER)
    for path in foreign.masks("stereo").rglob("*.png"):
        if path.stem == Path(row["image"]).stem:
            path.unlink()
    before = folder_hash(foreign.folder)
    _, means = evaluate_static(foreign, "stereo", one, trained, METER)
    assert "covisible by depth" in means["protocol"]
    assert folder_hash(foreign.folder) == before
    anew = one.model_copy(update={"runtime": StaticRuntime(rebuild_covisible=True)})
    assert evaluate_static(foreign, "stereo", anew, trained, METER)[1] == means
    assert [path.stem for path in foreign.masks("stereo").rglob("*.png")] == [
        Path(row["image"]).stem
    ]


def test_mask_of_another_size_is_refused(foreign: SharedFolder, trained: Path) -> None:
    mask = foreign.mask("stereo", "eval__frame_00002.png")
    width, height = image_size(mask)
    write_mask(mask, np.ones((96, 128), bool))
    expected = rf"frame_00002.png: 128x96 px\nexpected the {width}x{height} px"
    with pytest.raises(UserError, match=expected):
        evaluate_static(foreign, "stereo", STATIC, trained, METER)


def test_folder_of_masks_with_other_files_is_left_alone(
    prepared: tuple[SharedFolder, dict], trained: Path, tmp_path: Path
) -> None:
    shared = SharedFolder(Path(shutil.copytree(prepared[0].folder, tmp_path / "shared")))
    shutil.rmtree(shared.masks("stereo"), ignore_errors=True)
    notes = shared.masks("stereo") / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    for anew in (False, True):
        static = replace_static(runtime=StaticRuntime(rebuild_covisible=anew))
        with pytest.raises(UserError, match="no result of this command"):
            evaluate_static(shared, "stereo", static, trained, METER)
    assert notes.read_text() == "mine"


def test_alignment_of_a_parser_without_the_flip_is_right_in_its_own_convention(
    foreign: SharedFolder, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path, half_turn = foreign.alignment("stereo"), np.diag([1.0, -1.0, -1.0, 1.0])
    path.unlink()
    evaluate_static(foreign, "stereo", STATIC, trained, METER)
    ours = read_alignment(path)
    theirs = {
        "base_transform": half_turn @ ours.base_transform,
        "support_transform": half_turn @ ours.support_transform,
        "align_transform": half_turn @ ours.align_transform @ half_turn,
    }
    np.savez(path, **{key: value.astype(np.float32) for key, value in theirs.items()})
    before = path.read_bytes()
    evaluate_static(foreign, "stereo", STATIC, trained, METER)
    assert path.read_bytes() == before
    assert "stereo_to_eval.npz: kept; its frames are half turns from the Gaussians'" in caplog.text


def test_own_alignment_of_an_older_version_gets_its_convention(
    prepared: tuple[SharedFolder, dict], trained: Path
) -> None:
    shared, _ = prepared
    evaluate_static(shared, "stereo", STATIC, trained, METER)
    path = shared.alignment("stereo")
    with np.load(path) as stored:
        older = {key: stored[key] for key in stored if key.endswith("_transform")}
    np.savez(path, **older)
    evaluate_static(shared, "stereo", STATIC, trained, METER)
    assert read_alignment(path).normalization == NORMALIZATION
