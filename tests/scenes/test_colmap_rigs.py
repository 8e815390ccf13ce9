"""Lenses and rigs in COLMAP models, on pycolmap's own synthetic captures."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rigid, rotation_angle_deg, rotation_from_vector
from stages.scenes.colmap_lenses import Lens
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses.colmap_pooled import Thresholds
from stages.scenes.poses.colmap_rigs import (
    Slot,
    Structure,
    adjust_rigs,
    read_rig_model,
    write_rig_model,
)
from stages.scenes.poses.colmap_sfm import map_images, undistorted_points

FRAMES, LENSES = 5, 3


def synthetic(rigs: int = 2, lenses: int = LENSES, bend: float | None = None):
    """Rigs of some lenses, five frames each, all points visible in all images."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = rigs, lenses, FRAMES
    options.num_points3D, options.num_points2D_without_point3D = 60, 0
    options.camera_params = [900.0, 512.0, 384.0]
    if bend is None:
        options.camera_model_id = pycolmap.CameraModelId.SIMPLE_PINHOLE
    else:
        options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
        options.camera_params = [900.0, 512.0, 384.0, bend]
    options.sensor_from_rig_translation_stddev = 0.3
    pycolmap.set_random_seed(1)
    return pycolmap.synthesize_dataset(options)


Capture = tuple[dict[str, Camera], dict[str, Slot], Structure]


def taken_apart(model: pycolmap.Reconstruction) -> Capture:
    """Cameras, slots and points of a model; a distortion is left out of the cameras."""
    cameras, slots = {}, {}
    for image in model.images.values():
        lens, pose = model.cameras[image.camera_id], np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        K = lens.calibration_matrix()
        cameras[image.name] = Camera(image.name, K, pose, lens.width, lens.height)
        frame = model.frames[image.frame_id]
        lens_name, rig = f"lens{image.camera_id}", f"rig{frame.rig_id}"
        slots[image.name] = Slot(lens_name, rig, str(frame.frame_id))
    number = {image_id: index for index, image_id in enumerate(model.images)}
    shown = [
        (index, number[e.image_id], *model.images[e.image_id].points2D[e.point2D_idx].xy)
        for index, point in enumerate(model.points3D.values())
        for e in point.track.elements
    ]
    point, image, x, y = np.array(shown).T
    points = np.array([point.xyz for point in model.points3D.values()])
    structure = Structure(
        points,
        np.zeros((len(points), 3), np.uint8),
        tuple(cameras),
        point.astype(int),
        image.astype(int),
        np.stack([x, y], axis=1),
    )
    return cameras, slots, structure


@pytest.fixture(scope="module")
def capture() -> Capture:
    return taken_apart(synthetic())


def mapped(
    cameras: dict[str, Camera], slots: dict[str, Slot], structure: Structure
) -> tuple[dict[str, Camera], dict[str, Lens]]:
    """What the mapper makes of all observations, focal lengths starting 8 % too long."""
    pixels, index = {}, {}
    for name in cameras:
        own = structure.image == structure.images.index(name)
        pixels[name], index[name] = structure.pixel[own], structure.point[own]
    matches = {}
    for a, b in itertools.combinations(cameras, 2):
        _, *rows = np.intersect1d(index[a], index[b], return_indices=True)
        matches[a, b] = np.stack(rows, axis=1).astype(np.uint32)
    guesses = {}
    for name, camera in cameras.items():
        K = camera.K * np.array([[1.08, 1, 1], [1, 1.08, 1], [1, 1, 1]])
        guesses[name] = Camera(name, K, np.eye(4), camera.width, camera.height)
    return map_images(guesses, slots, pixels, matches, Thresholds(4.0, 1.5, seed=0))


def shaken(cameras: dict[str, Camera], seed: int = 0) -> dict[str, Camera]:
    rng = np.random.default_rng(seed)
    noisy = {}
    for name, camera in cameras.items():
        rotation = rotation_from_vector(0.01 * rng.standard_normal(3))
        shift = rigid(rotation, 0.02 * rng.standard_normal(3))
        K = camera.K.copy()
        noisy[name] = Camera(name, K, shift @ camera.cam_from_world, camera.width, camera.height)
    return noisy


def shape(cameras: dict[str, Camera], slots: dict[str, Slot], rig: str, frame: str) -> np.ndarray:
    """Poses of a frame's lenses, in their order, relative to the first, [L, 4, 4]."""
    names = [name for name in cameras if (slots[name].rig, slots[name].frame) == (rig, frame)]
    members = [cameras[name] for name in sorted(names, key=lambda name: slots[name].lens)]
    return np.stack([m.cam_from_world @ members[0].world_from_cam for m in members])


def test_adjustment_recovers_true_poses_and_rigid_rigs(capture) -> None:
    cameras, slots, structure = capture
    noise = np.random.default_rng(1).normal(scale=0.02, size=structure.points.shape)
    start = replace(structure, points=structure.points + noise)
    found, points, error_px = adjust_rigs(shaken(cameras), slots, start)
    assert error_px < 0.01
    names = list(cameras)
    true_from_found, residual = fit_sim3_from_cameras(
        [found[n] for n in names], [cameras[n] for n in names]
    )
    assert residual["centre_rmse_relative"] < 1e-4
    assert residual["rotation_mean_deg"] < 1e-2
    assert true_from_found.apply(points) == pytest.approx(structure.points, abs=1e-2)
    frames = sorted({slots[n].frame for n in names if slots[n].rig == "rig1"})
    shapes = [shape(found, slots, "rig1", frame) for frame in frames]
    assert all(one == pytest.approx(shapes[0], abs=1e-9) for one in shapes)


def test_mounted_lenses_keep_their_pose_against_the_images(capture) -> None:
    cameras, slots, structure = capture
    lenses = sorted({slot.lens for slot in slots.values() if slot.rig == "rig1"})
    moved = dict(cameras)
    for name, camera in cameras.items():
        if slots[name].lens == lenses[1]:
            moved[name] = camera.moved(rigid(np.eye(3), [0.05, 0, 0]) @ camera.cam_from_world)
    held = {
        name: Slot(slot.lens, slot.rig, slot.frame, mounted=slot.lens == lenses[1])
        for name, slot in slots.items()
    }
    frame = next(slot.frame for slot in slots.values() if slot.rig == "rig1")
    wanted = shape(moved, slots, "rig1", frame)[1]
    kept = shape(adjust_rigs(moved, held, structure)[0], slots, "rig1", frame)[1]
    freed = shape(adjust_rigs(moved, slots, structure)[0], slots, "rig1", frame)[1]
    assert kept == pytest.approx(wanted, abs=1e-9)
    assert abs(freed - wanted).max() > 1e-2


def test_written_model_has_rigs_tracks_and_true_projections(capture, tmp_path: Path) -> None:
    cameras, slots, structure = capture
    write_rig_model(tmp_path / "sparse" / "0", cameras, slots, structure)
    model = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    assert (len(model.rigs), len(model.frames), len(model.images)) == (2, 10, 30)
    assert {len(rig.sensor_ids()) for rig in model.rigs.values()} == {LENSES}
    assert model.compute_mean_reprojection_error() < 1e-6
    assert len(model.cameras) == 2 * LENSES, "one camera a lens, not one an image"
    back, points = read_rig_model(tmp_path / "sparse" / "0")
    assert list(back) == list(cameras)
    for name, camera in cameras.items():
        assert back[name].cam_from_world == pytest.approx(camera.cam_from_world, abs=1e-9)
    assert points.images == structure.images
    assert points.points == pytest.approx(structure.points)
    for name in cameras:
        read, written = (of_image(one, name) for one in (points, structure))
        assert read[0].tolist() == written[0].tolist()
        assert read[1] == pytest.approx(written[1])


def test_structure_of_some_images_has_their_observations_alone(capture) -> None:
    cameras, _, structure = capture
    names = list(cameras)[:2]
    some = structure.visible_in(names)
    assert some.images == tuple(names)
    assert set(some.image) == {0, 1}
    assert len(some.points) == len(structure.points)
    none = structure.visible_in(["other"])
    assert len(none.points) == len(none.point) == len(none.images) == 0


def test_points_that_some_images_do_not_show_are_left_out_of_their_structure() -> None:
    place = np.arange(10.0).reshape(5, 2)
    structure = Structure(
        np.arange(9.0).reshape(3, 3),
        np.arange(9, dtype=np.uint8).reshape(3, 3),
        ("a", "b", "c"),
        np.array([0, 0, 1, 2, 2]),
        np.array([0, 1, 1, 0, 2]),
        place,
    )
    some = structure.visible_in({"a", "c"})
    assert some.images == ("a", "c")
    assert some.points.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert some.colors.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert list(zip(some.point, some.image, strict=True)) == [(0, 0), (1, 0), (1, 1)]
    assert some.pixel.tolist() == place[[0, 3, 4]].tolist()
    twice = structure.with_copies({"d": "b"})
    assert twice.images == ("a", "b", "c", "d")
    assert of_image(twice, "d")[0].tolist() == [0, 1]
    assert of_image(twice, "d")[1].tolist() == place[[1, 2]].tolist()
    assert twice.point.tolist() == [0, 0, 0, 1, 1, 2, 2]


def of_image(structure: Structure, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points that an image shows, and their pixels."""
    own = structure.image == structure.images.index(name)
    return structure.point[own], structure.pixel[own]


def test_mapper_registers_images_that_share_a_lens(capture: Capture) -> None:
    cameras, slots, structure = capture
    of_rig = {name: camera for name, camera in cameras.items() if slots[name].rig == "rig1"}
    found, bent = mapped(of_rig, slots, structure)
    assert set(found) == set(of_rig)
    assert bent == {}
    by_lens: dict[str, set[float]] = {}
    for name, camera in found.items():
        by_lens.setdefault(slots[name].lens, set()).add(float(camera.K[0, 0]))
    assert all(len(focals) == 1 for focals in by_lens.values())
    assert {round(focal) for focals in by_lens.values() for focal in focals} == {900}
    true = list(of_rig.values())
    fitted, _ = fit_sim3_from_cameras([found[camera.name] for camera in true], true)
    turned = fitted.apply_camera(found[true[0].name]).cam_from_world[:3, :3]
    assert rotation_angle_deg(turned, true[0].cam_from_world[:3, :3]) < 0.05


def test_mapper_estimates_distortion_and_points_are_undistorted() -> None:
    cameras, slots, structure = taken_apart(synthetic(rigs=1, lenses=1, bend=0.08))
    bent_slots = {name: replace(slot, distorted=True) for name, slot in slots.items()}
    found, bent = mapped(cameras, bent_slots, structure)
    assert set(found) == set(bent) == set(cameras)
    lens = next(iter(bent.values()))
    assert lens.params == pytest.approx((900, 512, 384, 0.08), rel=1e-3)
    K, _, _ = lens.pinhole()
    name = next(iter(cameras))
    visible, pixels = of_image(structure, name)
    ideal = replace(cameras[name], K=K).project(structure.points[visible])[0]
    assert undistorted_points(pixels, lens) == pytest.approx(ideal, abs=0.1)
    assert np.abs(pixels - ideal).max() > 5, "it was bent indeed"
    folded = replace(lens, params=(900, 512, 384, -3.0))
    reached = np.isfinite(undistorted_points(np.array([[512.0, 384.0], [1000, 700]]), folded))
    assert reached.all(axis=1).tolist() == [True, False]


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no COLMAP model"):
        read_rig_model(tmp_path)
