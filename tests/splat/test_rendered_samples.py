"""Samples of a scene whose images are exact renders of its Gaussians."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_scene import SIZE, with_targets

from stages.run import layout
from stages.run.artefacts import LEARNT_CAMERAS
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, whole_folder
from stages.samples.faults import index_faults
from stages.samples.index import SampleIndex
from stages.samples.reconstructions import reconstructions
from stages.samples.rendering import render_pairs
from stages.scenes import images
from stages.scenes.cameras import rigid, rotation_from_vector
from stages.scenes.colmap import write_model
from stages.scenes.config import PairsConfig, ReferenceConfig
from stages.scenes.frames import Sim3
from stages.scenes.images import read_image, read_rgba, write_mask, write_png
from stages.scenes.poses.calibration import read_calibration, write_calibration
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians

Render = Callable[..., SampleIndex]


@pytest.fixture
def rendered(scene: Scene, truth: Gaussians, config: TrainConfig) -> Render:
    """Writes the samples of the scene, whose Gaussians are the true ones, into `pairs`."""
    for time in scene.timestamps:
        truth.save(layout.splats(scene.name) / time / "gaussians.safetensors")

    def call(
        split: str = "train",
        train: TrainConfig = config,
        policy: str = "nearest",
        of: Scene = scene,
        **changed: object,
    ) -> SampleIndex:
        folders = layout.calibrated(scene.name), layout.splats(scene.name), Path("pairs")
        return render_pairs(of, *folders, PairsConfig(**changed), train, split, "cpu", policy)

    return call


def rotate_target(scene: Scene, radians: float) -> None:
    """Give the estimated target camera a wrong rotation."""
    folder = layout.calibrated(scene.name)
    found = read_calibration(folder)
    error = rigid(rotation_from_vector([0, radians, 0]), np.zeros(3))
    targets = {name: one.moved(error @ one.cam_from_world) for name, one in found.targets.items()}
    points = {time: found.points(time) for time in scene.timestamps}
    write_calibration(folder, replace(found, targets=targets), points)


def test_sample_is_render_ground_truth_and_nearest_source(scene: Scene, rendered: Render) -> None:
    index = rendered()
    assert [one.name for one in index.pairs] == ["000021_03", "000033_03"]
    assert (index.scene, index.group, index.split) == (scene.name, "pair15", "train")
    images = {(view.timestamp, view.name): view.image_path for view in scene.all_views}
    for one in index.pairs:
        paths = {kind: Path("pairs") / kind / f"{one.name}.png" for kind in one.files}
        assert {kind: file_hash(path) for kind, path in paths.items()} == one.files
        target, reference = (paths[kind].read_bytes() for kind in ("target_image", "ref_image"))
        assert target == images[one.timestamp, "03"].read_bytes()
        assert one.ref_camera == "02"  # as far as 04, and named first
        assert one.ref_timestamp == one.timestamp
        assert reference == images[one.timestamp, one.ref_camera].read_bytes()
        assert np.abs(read_image(paths["image"]) - read_image(paths["target_image"])).max() < 0.005
        assert one.psnr > 55
    assert sorted(index.photographs["target"]) == ["000021/03", "000033/03"]
    assert len(index.photographs["source"]) == 10


def test_pngs_are_written_in_threads_and_a_failure_is_an_error(
    rendered: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writers = images.write_png, set()

    def noted(path: Path, image: np.ndarray) -> None:
        writers.add(threading.current_thread())
        write(path, image)

    monkeypatch.setattr(images, "write_png", noted)
    rendered()
    assert writers
    assert threading.main_thread() not in writers
    blocked = Path("pairs/image/000033_03.png")  # the last
    blocked.unlink()
    blocked.mkdir()
    with pytest.raises(OSError, match=blocked.name):
        rendered()


def test_references_follow_the_policy_in_both_splits(scene: Scene, rendered: Render) -> None:
    """The two sources next to the target are rotated by 180 degrees and see nothing of it."""
    folder = layout.calibrated(scene.name)
    found = read_calibration(folder)
    back = rigid(rotation_from_vector([0, np.pi, 0]), np.zeros(3))
    away = {name: found.sources[name] for name in ("02", "04")}
    away = {name: one.moved(back @ one.cam_from_world) for name, one in away.items()}
    points = {time: found.points(time) for time in scene.timestamps}
    write_calibration(folder, replace(found, sources=found.sources | away), points)
    for split in ("train", "test"):
        used = {
            policy: {one.ref_camera for one in rendered(split, policy=policy).pairs}
            for policy in ("nearest", "overlap", "source:04")
        }
        assert used["nearest"] <= set(away)
        assert used["overlap"].isdisjoint(away)
        assert used["source:04"] == {"04"}
    with pytest.raises(UserError, match=r"(?s)reference_from.*source:99.*a source camera"):
        rendered(policy="source:99")


def test_previous_takes_the_render_of_a_nearer_novel_camera(
    scene: Scene, truth: Gaussians, rendered: Render
) -> None:
    """Of three targets side by side the middle one has no source camera beside it."""
    scene = with_targets(scene, ("02", "03", "04"), truth)
    noise = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
    for view in scene.views("target"):
        write_png(view.image_path, noise * (0.5 + int(view.name) / 10))
    for split in ("train", "test"):
        index = rendered(split, policy="previous", of=scene)
        used = {(one.timestamp, one.camera): one for one in index.pairs}
        assert {key[1]: one.ref_camera for key, one in used.items()} == {
            "02": "01",
            "03": "02",
            "04": "05",
        }
        folder = Path("pairs")
        for time in scene.timestamps:
            middle = read_image(used[time, "03"].path(folder, "ref_image"))
            beside = read_image(used[time, "02"].path(folder, "image"))
            np.testing.assert_array_equal(middle, beside)
        assert list(index_faults(index, folder)) == []
        assert index == rendered(split, policy="previous", of=scene)
    record = used[scene.timestamps[0], "03"]
    leaked = index.photographs["target"][f"{record.timestamp}/02"]
    files = {**record.files, "ref_image": leaked}
    (error,) = index_faults(replace(index, pairs=(replace(record, files=files),)), folder)
    assert "no source camera's image" in error.got


@pytest.mark.parametrize("strategy", ["temporal", "mixed"])
def test_previous_stays_within_a_timestamp(rendered: Render, strategy: str) -> None:
    with pytest.raises(UserError, match=r"(?s)reference_from.*previous.*same_time.*fix"):
        rendered(policy="previous", reference=ReferenceConfig(strategy=strategy))


def test_psnr_is_that_of_the_files(scene: Scene, rendered: Render) -> None:
    rotate_target(scene, 0.02)
    for one in rendered().pairs:
        pair = [
            read_image(Path("pairs") / kind / f"{one.name}.png")
            for kind in ("image", "target_image")
        ]
        error = np.square(pair[0].astype(float) - pair[1]).mean()
        assert one.psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)
        assert one.psnr < 30


@pytest.mark.slow  # compiles the backward pass
def test_aligned_poses_remove_the_error_of_the_calibration(scene: Scene, rendered: Render) -> None:
    rotate_target(scene, 0.01)
    before = rendered()
    after = rendered(poses="aligned", align_steps=40)
    assert after.pairs[0].psnr > before.pairs[0].psnr + 5
    assert {one.poses for one in after.pairs} == {"aligned"}
    # The test split keeps the poses that inference will have.
    assert rendered("test", poses="aligned").pairs == before.pairs


def test_given_poses_come_from_gaussians_of_true_poses(
    scene: Scene, rendered: Render, config: TrainConfig
) -> None:
    """Errors of the calibration and of its Gaussians have no effect."""
    rotate_target(scene, 0.3)
    for time in scene.timestamps:
        (layout.splats(scene.name) / time / "gaussians.safetensors").write_bytes(b"not used")
    index = rendered(poses="given", train=config.model_copy(update={"pose_opt": True}))
    assert {one.poses for one in index.pairs} == {"given"}
    assert min(one.psnr for one in index.pairs) > 20
    assert not layout.splats("other").exists()


def test_given_poses_are_true_ones_in_the_true_frame(scene: Scene, config: TrainConfig) -> None:
    folder = layout.calibrated(scene.name)
    est_from_true = Sim3(2.0, rotation_from_vector([0.2, 0.5, -0.1]), np.array([1.0, -2.0, 0.5]))
    read = read_calibration(folder)
    sources, targets = (
        {name: est_from_true.apply_camera(one) for name, one in group.items()}
        for group in (read.sources, read.targets)
    )
    found = replace(read, est_from_true=est_from_true, sources=sources, targets=targets)
    train = config.model_copy(update={"pose_opt": True})
    pairs = PairsConfig(poses="given")
    (reconstruction,) = reconstructions(scene, found, folder, pairs, train, "cpu")
    point = np.array([[0.3, -0.2, 0.7]])
    assert np.allclose(reconstruction.frame_from_est.apply(est_from_true.apply(point)), point)
    for role, placed in (
        ("source", reconstruction.calibration.sources),
        ("target", reconstruction.calibration.targets),
    ):
        for name, true in scene.cameras(role).items():
            assert np.array_equal(placed[name].cam_from_world, true.cam_from_world)
    assert reconstruction.train is not None
    assert not reconstruction.train.pose_opt


def test_many_cameras_are_left_out_together(scene: Scene, config: TrainConfig) -> None:
    """As many as a file name would not hold."""
    folder = layout.calibrated(scene.name)
    found = read_calibration(folder)
    camera = next(iter(found.sources.values()))
    names = [f"camera_{number:03d}" for number in range(40)]
    many = replace(found, sources=dict.fromkeys(names, camera))
    pairs = PairsConfig(leave_out=(tuple(names[:30]),))
    _, without = reconstructions(scene, many, folder, pairs, config, "cpu")
    with whole_folder(without.splats / "000001"):
        pass
    assert list(without.calibration.targets) == names[:30]


def test_left_out_camera_is_not_trained_on(scene: Scene, rendered: Render) -> None:
    broken = [view for view in scene.views("source") if view.name == "01"]
    for view in broken:
        write_png(view.image_path, np.ones((48, 48, 3), np.float32))
    index = rendered(leave_out=("01",))
    left = [one for one in index.pairs if one.left_out]
    assert [one.name for one in left] == ["000021_01", "000033_01"]
    for one in left:
        assert one.ref_camera in ("00", "02")
        # Gaussians trained on the white image would be bright.
        assert read_image(Path("pairs/image") / f"{one.name}.png").mean() < 0.6


def test_intermediate_gaussians_give_further_samples(
    scene: Scene, rendered: Render, truth: Gaussians, config: TrainConfig
) -> None:
    early = replace(truth, opacity_logits=truth.opacity_logits - 4)
    for time in scene.timestamps:
        early.save(layout.splats(scene.name) / time / "gaussians_20.safetensors")
    train = config.model_copy(update={"save_steps": (40,), "steps_scaler": 0.5})
    index = rendered(train=train, steps=(40,))
    values = {one.name: one.psnr for one in index.pairs}
    assert list(values) == [
        f"{time}_03{step}" for time in scene.timestamps for step in ("", "_step20")
    ]
    assert values["000021_03_step20"] < values["000021_03"] - 10
    assert [one.step for one in rendered("test", steps=(40,)).pairs] == [None, None]
    with pytest.raises(UserError, match=r"(?s)no Gaussians are kept of step 60.*keeps 40"):
        rendered(train=train, steps=(40, 60))
    with pytest.raises(UserError, match="no timestamp half trained"):
        rendered(train=train.model_copy(update={"warm_start": True}), steps=(40,))


def test_several_references_share_a_render(rendered: Render) -> None:
    reference = ReferenceConfig(strategy="mixed", cameras=2)
    index = rendered(reference=reference)
    assert len(index.pairs) == 2 * 2 * 2
    assert len({one.files["image"] for one in index.pairs if one.timestamp == "000021"}) == 1
    assert {(one.timestamp, one.ref_timestamp) for one in index.pairs} == {
        ("000021", "000021"),
        ("000021", "000033"),
        ("000033", "000021"),
        ("000033", "000033"),
    }


def test_two_runs_give_the_same_bytes(rendered: Render) -> None:
    first = rendered(max_pairs=1), folder_hash(Path("pairs"))
    assert (rendered(max_pairs=1), folder_hash(Path("pairs"))) == first


def test_no_target_with_a_reference_is_an_error(rendered: Render) -> None:
    reference = ReferenceConfig(strategy="temporal", offset_frames=2)
    with pytest.raises(UserError, match=r"(?s)no target with a reference.*lie 2 apart.*000033"):
        rendered(reference=reference)


def test_source_camera_is_no_target(rendered: Render) -> None:
    with pytest.raises(UserError, match=r"(?s)pairs.cameras: '01'.*target cameras.*: 03"):
        rendered(cameras=("01",))


def test_unequal_sizes_in_a_sample_are_refused(scene: Scene, rendered: Render) -> None:
    for view in scene.views("source"):
        write_png(view.image_path, np.zeros((32, 40, 3), np.float32))
    with pytest.raises(UserError, match=r"(?s)target 48x48 px, reference 40x32 px.*one size"):
        rendered()


def test_reference_with_a_targets_bytes_is_refused(scene: Scene, rendered: Render) -> None:
    target = scene.views("target", "000021")[0].image_path.read_bytes()
    for view in scene.views("source", "000021"):
        view.image_path.write_bytes(target)
    with pytest.raises(UserError, match=r"the reference of 000021_03 is target camera 03's"):
        rendered()


def test_missing_gaussians_are_named(scene: Scene, rendered: Render) -> None:
    (layout.splats(scene.name) / "000033" / "gaussians.safetensors").unlink()
    with pytest.raises(UserError, match=r"000033/gaussians.safetensors: no such file"):
        rendered()


def test_pixels_outside_of_the_mask_are_black_in_the_render(scene: Scene, rendered: Render) -> None:
    for view in scene.views("target"):
        mask = np.ones((view.camera.height, view.camera.width), bool)
        mask[:10] = False
        write_mask(view.image_path.parent.parent / "seen" / view.image_path.name, mask)
    for record in rendered().pairs:
        render = read_image(Path("pairs") / "image" / f"{record.name}.png")
        assert not render[:10].any()
        assert render[10:].any()


@pytest.fixture
def learnt(scene: Scene) -> None:
    """The source cameras that training would leave: exact ones."""
    cameras = read_calibration(layout.calibrated(scene.name)).sources
    named = {f"{name}.png": replace(one, name=f"{name}.png") for name, one in cameras.items()}
    for time in scene.timestamps:
        write_model(layout.splats(scene.name) / time / LEARNT_CAMERAS, named)


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize("split", ["train", "test"])
def test_source_images_are_warped_into_the_target(
    scene: Scene, rendered: Render, split: str
) -> None:
    plain = rendered(split)
    shutil.rmtree("pairs")
    index = rendered(split, warped=3)
    for one, before in zip(index.pairs, plain.pairs, strict=True):
        assert one.warped == ("02", "04", "01")
        assert [*one.files] == ["image", "target_image", "ref_image"] + [
            f"warped_{number}" for number in (1, 2, 3)
        ]
        assert before.files.items() <= one.files.items(), "the others are as without"
        assert all(file_hash(one.path(Path("pairs"), k)) == h for k, h in one.files.items())
        truth = read_image(one.path(Path("pairs"), "target_image"))
        for number in (1, 2, 3):
            warped = read_rgba(one.path(Path("pairs"), f"warped_{number}"))
            trusted = warped[..., 3] > 0.9
            assert 0.02 < trusted.mean() < 1
            error = np.abs(warped[..., :3] - truth)[trusted]
            assert np.median(error) < 0.05
            assert error.max() > 0.01, "it is no copy of the ground truth"
    assert not list(index_faults(index, Path("pairs")))


@pytest.mark.usefixtures("learnt")
def test_a_render_is_warped_where_the_policy_names_one(
    scene: Scene, truth: Gaussians, rendered: Render
) -> None:
    """By `previous` the middle of three targets has the render of the first, not its image."""
    three = with_targets(scene, ("02", "03", "04"), truth)
    noise = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
    for view in three.views("target"):
        write_png(view.image_path, noise * (0.5 + int(view.name) / 10))
    index = rendered(policy="previous", of=three, warped=2)
    assert all(one.camera not in one.warped for one in index.pairs)
    for one in index.pairs:
        if one.camera == "03":
            assert one.warped[0] == "02"
            warped = read_rgba(one.path(Path("pairs"), "warped_1"))
            image = read_image(one.path(Path("pairs"), "image"))
            trusted = warped[..., 3] > 0.9
            assert trusted.mean() > 0.02
            assert np.median(np.abs(warped[..., :3] - image)[trusted]) < 0.05
    assert not list(index_faults(index, Path("pairs")))
