"""Evaluation sets: the same frame, another frame with shared images, or a refusal."""

from pathlib import PurePosixPath

import numpy as np
import pytest
from small_capture import cameras

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rotation_from_vector
from stages.scenes.captures.eval_registration import Placement, nearest, place
from stages.scenes.frames import Sim3

MOVED = Sim3(2.5, rotation_from_vector([0.4, 1.9, -0.3]), np.array([7.0, -3.0, 2.0]))
TRAINED = cameras()
SHA = {name: f"sha of {name}" for name in TRAINED}


def surface(seed: int, count: int = 400) -> np.ndarray:
    """Points on a sphere around the origin, as two reconstructions of it would find them."""
    at = np.random.default_rng(seed).standard_normal((count, 3))
    return at / np.linalg.norm(at, axis=1, keepdims=True)


def evaluated(names: tuple[str, ...], frame: Sim3 | None = None) -> dict[str, Camera]:
    """Cameras between the trained ones, in a frame of their own."""
    frame = frame or Sim3.identity()
    return {name: frame.apply_camera(one) for name, one in cameras(names, shift=0.05).items()}


def placed(
    cameras: dict[str, Camera],
    sha: dict[str, str],
    frame: str = "auto",
    points: np.ndarray | None = None,
) -> Placement:
    points = surface(1) if points is None else points
    return place(TRAINED, SHA, surface(0), cameras, sha, points, frame, "eval")


NAMES = ("a.png", "b.png", "c.png")


def test_frame_is_shared_when_cameras_and_points_say_so() -> None:
    registration = placed(evaluated(NAMES), {name: name for name in NAMES})
    assert registration.how.startswith("shared frame")
    assert np.array_equal(registration.train_from_eval.matrix, np.eye(4))


def test_images_in_both_give_the_similarity() -> None:
    """By content, whatever they are called; the cameras come home."""
    shared = list(TRAINED)[1:4]
    cameras = evaluated(NAMES, MOVED)
    cameras |= {f"copy {name}": MOVED.apply_camera(TRAINED[name]) for name in shared}
    sha = {name: SHA.get(name.removeprefix("copy "), name) for name in cameras}
    registration = placed(cameras, sha, points=MOVED.apply(surface(1)))
    assert registration.shared_images == 3
    assert registration.residual < 1e-9
    home = registration.train_from_eval.apply_camera(cameras["a.png"])
    assert np.allclose(home.cam_from_world, evaluated(NAMES)["a.png"].cam_from_world, atol=1e-9)


def test_equal_names_do_not_count() -> None:
    """Copies that were saved anew may be anything: what is told says that only names are equal."""
    cameras = {name: MOVED.apply_camera(TRAINED[name]) for name in list(TRAINED)[:2]}
    with pytest.raises(UserError, match=r"no image is in both \(2 file names are, with other"):
        placed(cameras, {name: "resaved " + name for name in cameras})


def test_the_other_eye_of_a_rig_does_not_move_the_frame() -> None:
    """left/0001.png and right/0001.png: poses that a similarity would carry onto each other."""
    baseline = Sim3(1.0, np.eye(3), np.array([0.3, 0.0, 0.0]))
    cameras = {
        f"right/{PurePosixPath(name).name}": baseline.apply_camera(one)
        for name, one in TRAINED.items()
    }
    for renamed in (cameras, {name: baseline.apply_camera(one) for name, one in TRAINED.items()}):
        registration = placed(renamed, {name: "right " + name for name in renamed})
        assert np.array_equal(registration.train_from_eval.matrix, np.eye(4))
        assert registration.shared_images == 0


def test_a_image_that_a_set_has_twice_ties_nothing() -> None:
    """Black frames at the start of a video: equal bytes, and poses of their own."""
    names = list(TRAINED)[:3]
    cameras = {name: MOVED.apply_camera(TRAINED[name]) for name in names}
    twice = SHA | dict.fromkeys(names[1:], "black")
    sha = {names[0]: SHA[names[0]], names[1]: "black", names[2]: "black"}
    with pytest.raises(UserError, match="1 common image has another pose"):
        place(TRAINED, twice, surface(0), cameras, sha, surface(1), "auto", "eval")


def test_equal_names_of_other_images_do_not_move_a_shared_frame() -> None:
    """frame_00001.png of two videos: the poses contradict each other, and the points agree."""
    names = tuple(reversed(TRAINED))
    registration = placed(evaluated(names), {name: "other " + name for name in names})
    assert registration.how.startswith("shared frame, by its points")


def test_unrelated_frame_is_refused_with_numbers() -> None:
    cameras = evaluated(NAMES, MOVED)
    with pytest.raises(UserError, match="2 of 3 cameras see none of the capture's points"):
        placed(cameras, {name: name for name in NAMES})
    around = Sim3(1.0, rotation_from_vector([0, 0.4, 0]), np.zeros(3))
    with pytest.raises(UserError, match="spacings away"):
        placed(evaluated(NAMES, around), {}, points=3.0 * surface(1))


def test_the_user_has_the_last_word() -> None:
    registration = placed(evaluated(NAMES, MOVED), {name: name for name in NAMES}, frame="shared")
    assert np.array_equal(registration.train_from_eval.matrix, np.eye(4))


def test_same_image_with_contradicting_poses_is_refused() -> None:
    names = list(TRAINED)[:4]
    cameras = {
        name: MOVED.apply_camera(TRAINED[other])
        for name, other in zip(names, names[::-1], strict=True)
    }
    with pytest.raises(UserError, match="4 common images contradict each other"):
        placed(cameras, {name: SHA[name] for name in names})


def test_one_image_fixes_no_scale() -> None:
    name = next(iter(TRAINED))
    cameras = {name: MOVED.apply_camera(TRAINED[name])}
    with pytest.raises(UserError, match="1 common image has another pose"):
        placed(cameras, {name: SHA[name]})


def test_images_alone_are_demanded() -> None:
    with pytest.raises(UserError, match="no image is in both\n"):
        placed(evaluated(NAMES), {name: name for name in NAMES}, frame="images")


def test_nearest_views_are_those_by_the_training_cameras() -> None:
    cameras = evaluated(NAMES)
    far = Sim3(1.0, np.eye(3), np.array([0, 0, -9.0]))
    cameras["b.png"] = far.apply_camera(cameras["b.png"])
    trained = list(TRAINED.values())
    assert nearest(trained, cameras, 2) == ["a.png", "c.png"]
    assert nearest(trained, cameras, 0) == list(NAMES)
    assert nearest(trained, cameras, 9) == list(NAMES)
