"""Judgement of captures' models, on models that are exact by construction."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from stages.scenes.cameras import look_at, rotation_from_vector
from stages.scenes.captures import colmap_mapping, held_out, model_judgement

_POINTS = 120


def arc(number: int) -> np.ndarray:
    """cam_from_world of cameras 5 degrees apart around the origin."""
    angle = np.radians(5.0 * number)
    return look_at(
        [4 * np.sin(angle), -0.4 + 0.3 * (number % 2), -4 * np.cos(angle)], [0, 0, 0], [0, -1, 0]
    )


def sideways(number: int) -> np.ndarray:
    """Cameras side by side that face one direction."""
    pose = np.eye(4)
    pose[:3, 3] = [-0.3 * number, -0.1 * (number % 3), 4.0]
    return pose


def turning(number: int) -> np.ndarray:
    """Cameras in one place that turn by 4 degrees."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_vector([0.02 * (number % 2), np.radians(4.0) * (number - 2.5), 0])
    pose[:3, 3] = pose[:3, :3] @ [0, 0, 4.0]
    return pose


def build(
    folder: Path,
    poses: Callable[[int], np.ndarray] = arc,
    *,
    groups: Sequence[Sequence[int]] = (range(6),),
    depth: float = 1.0,
    noise_px: float = 0.0,
    bend: float = 0.0,
    outside: int = 0,
) -> tuple[pycolmap.Reconstruction, Path]:
    """A model of six cameras, and its database with the verified matches.

    Each group of cameras observes points of its own, in one place with those of the others. The
    lens has a radial distortion `bend`; the first points are seen `outside` of what it reaches.
    """
    rng = np.random.default_rng(0)
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=640, height=480, params=[600.0, 320, 240, bend], camera_id=1
    )
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    xyz = {n: rng.uniform(-1, 1, (_POINTS, 3)) * [1, 1, depth] for n in range(len(groups))}
    group_of = {number: n for n, group in enumerate(groups) for number in group}
    for number in range(6):
        in_camera = xyz[group_of[number]] @ poses(number)[:3, :3].T + poses(number)[:3, 3]
        pixels = np.array(camera.img_from_cam(in_camera))
        pixels += noise_px * rng.standard_normal(pixels.shape)
        pixels[:outside] = [638.0, 478.0]
        image = pycolmap.Image(f"{number}.png", pixels, camera_id=1, image_id=number + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(poses(number)[:3]))
    for n, group in enumerate(groups):
        for row in range(_POINTS):
            track = pycolmap.Track()
            for number in group:
                track.add_element(number + 1, row)
            model.add_point3D(xyz[n][row], track)
    model.update_point_3d_errors()
    database = folder / "database.db"
    colmap_mapping._write_database(database, model)
    with pycolmap.Database.open(database) as opened:
        for number, image in model.images.items():
            pixels = np.array([point.xy for point in image.points2D], np.float32)
            opened.write_keypoints(number, pixels)
        for group in groups:
            for a, b in combinations(group, 2):
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
                geometry.inlier_matches = np.repeat(np.arange(_POINTS)[:, None], 2, 1)
                opened.write_matches(a + 1, b + 1, geometry.inlier_matches)
                opened.write_two_view_geometry(a + 1, b + 1, geometry)
    return model, database


def test_right_model_has_no_fault(tmp_path: Path) -> None:
    judgement = model_judgement.judge(*build(tmp_path))
    assert judgement.agreement == 1.0
    assert (judgement.fault, judgement.doubtful, judgement.contradictions) == ("", {}, ())


def test_cameras_beside_each_other_that_observe_other_points_contradict(tmp_path: Path) -> None:
    """As where two similar sides of an object are taken for one: every match agrees."""
    model, database = build(tmp_path, groups=(range(0, 6, 2), range(1, 6, 2)))
    judgement = model_judgement.judge(model, database)
    assert judgement.agreement == 1.0
    assert "cameras beside it observe other points" in judgement.fault
    assert {(a % 2) + (b % 2) for a, b in judgement.contradictions} == {1}


@pytest.mark.parametrize("focal_scale", [0.7, 1.0, 1.5])
def test_camera_that_turns_on_the_spot_faults_its_model(focal_scale: float, tmp_path: Path) -> None:
    """Every match agrees with baselines that the mapper invents, at any focal length."""
    model, database = build(tmp_path, turning, noise_px=0.3)
    for number in model.images:
        frame = model.frames[model.images[number].frame_id]
        moved = pycolmap.Rigid3d(np.hstack([np.eye(3), [[0.01 * number], [0.0], [0.0]]]))
        frame.rig_from_world = moved * frame.rig_from_world
    model.cameras[1].params = [600.0 * focal_scale, 320, 240, 0]
    judgement = model_judgement.judge(model, database)
    assert judgement.turned is not None
    assert judgement.turned > 0.97
    assert "a camera that turns on the spot" in judgement.fault


@pytest.mark.parametrize("poses", [arc, sideways])
@pytest.mark.parametrize("depth", [1.0, 0.0])
def test_cameras_that_move_do_not_turn_on_the_spot(
    poses: Callable[[int], np.ndarray], depth: float, tmp_path: Path
) -> None:
    """Of a plane as well, which one homography explains too."""
    turned = model_judgement.turned_share(*build(tmp_path, poses, depth=depth, noise_px=0.3))
    assert turned is not None
    assert turned < 0.8


def test_matches_that_a_wrong_lens_does_not_reach_contradict_the_model(tmp_path: Path) -> None:
    """Its distortion folds back inside the image; no ray meets a pixel beyond."""
    model, database = build(tmp_path)
    model.cameras[1].params = [600.0, 320, 240, -3.0]
    judgement = model_judgement.judge(model, database)
    assert judgement.turned is not None
    assert "contradict its pose" in judgement.fault
    on_plane = [of for _, of, _ in model_judgement._matches(model, database)]
    reached = [int(np.isfinite(np.hstack(of)).all(axis=1).sum()) for of in on_plane]
    assert 0 < max(reached) < _POINTS
    for pair, count in zip(model_judgement.verified_pairs(model, database), reached, strict=True):
        assert pair.total == _POINTS
        assert pair.near <= count


def test_model_of_which_no_match_has_a_ray_is_judged(tmp_path: Path) -> None:
    model, database = build(tmp_path, outside=_POINTS)
    model.cameras[1].params = [600.0, 320, 240, -3.0]
    judgement = model_judgement.judge(model, database)
    assert judgement.turned is None
    assert "6 of its 6 images do not fit (600 of 600 verified matches" in judgement.fault


def test_matches_without_a_ray_do_not_hide_that_a_camera_turns(tmp_path: Path) -> None:
    model, database = build(tmp_path, turning, noise_px=0.3, bend=-0.6, outside=20)
    turned = model_judgement.turned_share(model, database)
    assert turned is not None
    assert turned > 0.97


def test_held_out_tracks_that_a_wrong_lens_does_not_reach_are_infinitely_wrong(
    tmp_path: Path,
) -> None:
    model, database = build(tmp_path)
    held = held_out.take_out(model, database)
    assert held.tracks.count == _POINTS // 10
    before = held.error_px(model)
    assert before is not None
    assert before < 1e-2
    model.cameras[1].params = [600.0, 320, 240, -3.0]
    assert held.error_px(model) == np.inf


def test_deceptive_matches_are_taken_out_once(tmp_path: Path) -> None:
    _, database = build(tmp_path)
    assert colmap_mapping._forget(database, {(1, 2), (3, 4)})
    with pycolmap.Database.open(database) as opened:
        assert len(opened.read_two_view_geometry(1, 2).inlier_matches) == 0
        assert len(opened.read_two_view_geometry(1, 3).inlier_matches) == _POINTS
    assert not colmap_mapping._forget(database, {(1, 2)})


@pytest.mark.parametrize("tilted", [1, 2])
def test_one_image_that_does_not_fit_is_doubted_and_more_fault_the_model(
    tilted: int, tmp_path: Path
) -> None:
    model, database = build(tmp_path)
    for number in range(2, 2 + tilted):
        turn = rotation_from_vector([0.1 * number, 0.05, 0.2])
        tilt = pycolmap.Rigid3d(np.hstack([turn, np.zeros((3, 1))]))
        frame = model.frames[model.images[number].frame_id]
        frame.rig_from_world = tilt * frame.rig_from_world
    judgement = model_judgement.judge(model, database)
    assert sorted(judgement.doubtful) == list(range(2, 2 + tilted))
    assert "verified matches contradict its pose" in judgement.doubtful[2]
    assert bool(judgement.fault) == (tilted > 1)


def test_image_with_few_points_is_left_out_and_faults_nothing(tmp_path: Path) -> None:
    model, database = build(tmp_path)
    for row in range(_POINTS - 20):
        model.delete_observation(3, row)
    judgement = model_judgement.judge(model, database)
    assert judgement.doubtful == {3: "20 points"}
    assert not judgement.fault


def test_focal_length_is_as_certain_as_the_images_determine_it(tmp_path: Path) -> None:
    """Cameras that turn around points determine it; those that face a plane straight on do not."""
    (tmp_path / "arc").mkdir()
    (tmp_path / "plane").mkdir()
    certain, _ = build(tmp_path / "arc", noise_px=0.2)
    open_, _ = build(tmp_path / "plane", sideways, depth=0.0, noise_px=0.2)
    assert model_judgement.focal_deviation(certain) < 0.01
    deviation = model_judgement.focal_deviation(open_)
    assert deviation > 0.05
    assert "leave the focal length (600 px) open" in colmap_mapping._notes(open_, deviation)[0]
    assert colmap_mapping._notes(certain, 0.005) == ()


def test_lens_of_two_unlike_focal_lengths_is_told(tmp_path: Path) -> None:
    model, _ = build(tmp_path)
    (lens,) = model.cameras.values()
    for across, told in ((290.0, True), (590.0, False)):
        lens.model, lens.params = "OPENCV", [across, 600, 320, 240, 0, 0, 0, 0]
        notes = colmap_mapping._notes(model, 0.005)
        assert [f"{across:.0f} px across and 600 px down" in note for note in notes] == [
            True
        ] * told
