"""Frame alignments: their direction, by a round trip through two normalised frames."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, look_at, rotation_from_vector
from stages.scenes.frames import Sim3, normalisation
from stages.scenes.static.alignment import (
    NORMALIZATION,
    FrameAlignment,
    read_alignment,
    write_alignment,
)


def cameras(count: int, seed: int) -> list[Camera]:
    rng = np.random.default_rng(seed)
    K = np.array([[50.0, 0, 24], [0, 50, 16], [0, 0, 1]])
    eyes = np.array([0, 0, 4]) + rng.normal(size=(count, 3))
    return [
        Camera(str(k), K, look_at(eye, [0, 0, 0], [0, 1, 0]), 48, 32) for k, eye in enumerate(eyes)
    ]


def test_alignment_maps_from_the_eval_frame_to_the_training_frame() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)) * [2, 1, 0.3]
    train, _ = normalisation(cameras(3, seed=1), points[:25])
    support, _ = normalisation(cameras(4, seed=2), points)
    alignment = FrameAlignment.between(train, support)
    in_eval = support.apply(points)
    homogeneous = np.concatenate([in_eval, np.ones((len(points), 1))], axis=1)
    in_train = (homogeneous @ alignment.align_transform.T.astype(float))[:, :3]
    assert in_train == pytest.approx(train.apply(points), abs=1e-5)
    assert alignment.base_transform == pytest.approx(train.matrix, abs=1e-5)


def test_there_and_back_is_the_identity() -> None:
    first = Sim3(2.0, rotation_from_vector([0.3, -0.2, 1.0]), np.array([1.0, 2, 3]))
    second = Sim3(0.5, rotation_from_vector([-1.0, 0.5, 0.2]), np.array([-1.0, 0, 4]))
    there, back = FrameAlignment.between(first, second), FrameAlignment.between(second, first)
    both = there.align_transform.astype(float) @ back.align_transform.astype(float)
    assert both == pytest.approx(np.eye(4), abs=1e-5)


def test_file_has_the_three_keys_in_float32_and_says_its_convention(tmp_path: Path) -> None:
    alignment = FrameAlignment.between(Sim3(2.0, np.eye(3), np.ones(3)), Sim3.identity())
    path = tmp_path / "stereo_to_eval.npz"
    write_alignment(path, alignment)
    with np.load(path) as stored:
        transforms = ["align_transform", "base_transform", "support_transform"]
        assert sorted(stored) == sorted([*transforms, "normalization", "version"])
        assert {stored[key].dtype for key in transforms} == {np.dtype("float32")}
        assert str(stored["normalization"]) == NORMALIZATION
        assert int(stored["version"]) == 1
    assert read_alignment(path).normalization == NORMALIZATION
    assert read_alignment(path).is_like(alignment)
    assert not alignment.is_like(FrameAlignment.between(Sim3.identity(), Sim3.identity()))
    path.write_bytes(b"broken")
    with pytest.raises(UserError, match="not an alignment"):
        read_alignment(path)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((4, 4)),
        np.full((4, 4), 1e300),
        np.diag([-1.0, -1, -1, 1]),
        np.diag([1.0, 1, 1, 0]),
        np.diag([1.0, 2, 3, 1]),
        np.eye(3),
    ],
)
def test_transform_that_is_no_similarity_is_refused(tmp_path: Path, value: np.ndarray) -> None:
    path = tmp_path / "stereo_to_eval.npz"
    write_alignment(path, FrameAlignment.between(Sim3.identity(), Sim3.identity()))
    np.savez(path, **dict(np.load(path)) | {"base_transform": value})
    with pytest.raises(UserError, match=r"not an alignment \(base_transform "):
        read_alignment(path)


def test_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stereo_to_eval.npz"
    write_alignment(path, FrameAlignment.between(Sim3.identity(), Sim3.identity()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("align_transform.npy", b"NUMPI")
    with pytest.raises(UserError, match="align_transform is no array"):
        read_alignment(path)


def lopsided(seed: int, tail: float) -> np.ndarray:
    """A flat cloud, thin along y, with a tail towards +y or -y."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(300, 3)) * [2.0, 0.1, 1.0]
    points[:40, 1] += tail * rng.uniform(0.2, 1.0, size=40)
    return points


def without_flip(cameras: list[Camera], points: np.ndarray, axes: int) -> tuple[np.ndarray, bool]:
    """norm_from_world of a parser without the half turn, and whether it would have made one.

    Only the first step is taken from our own recipe; principal axes come from an SVD. `axes`, 0 or
    1, points two of them the other way, as another library may.
    """
    by_cameras, _ = normalisation(cameras, np.zeros((0, 3)))
    placed = by_cameras.apply(points)
    rotation = np.linalg.svd(placed - placed.mean(0))[2]
    rotation[0] *= np.linalg.det(rotation)
    rotation = np.diag([1.0, 1.0, 1.0] if axes == 0 else [-1.0, 1.0, -1.0]) @ rotation
    middle = np.median(placed, axis=0)
    heights = (placed - middle) @ rotation[2]
    by_points = Sim3(1.0, rotation, -rotation @ middle)
    return by_points.compose(by_cameras).matrix, bool(np.median(heights) > heights.mean())


@pytest.mark.parametrize("axes", [0, 1])
@pytest.mark.parametrize("tail", [-1.0, 1.0])
def test_files_of_parsers_without_the_flip_are_converted(
    tmp_path: Path, tail: float, axes: int
) -> None:
    """Scenes that such a parser leaves upside down, and upright ones; a file without the key."""
    points, train, held_out = lopsided(3, tail), cameras(5, seed=1), cameras(6, seed=2)
    ours = FrameAlignment.between(
        normalisation(train, points[:250])[0], normalisation(held_out, points)[0]
    )
    base, upside_down = without_flip(train, points[:250], axes)
    support, _ = without_flip(held_out, points, axes)
    path = tmp_path / "stereo_to_eval.npz"
    transforms = (base @ np.linalg.inv(support), base, support)
    names = ("align_transform", "base_transform", "support_transform")
    np.savez(path, **{n: m.astype(np.float32) for n, m in zip(names, transforms, strict=True)})
    theirs = read_alignment(path)
    assert theirs.normalization == ""
    half_turned = theirs.base_transform[2, :3] @ ours.base_transform[2, :3] < 0
    assert half_turned == upside_down
    converted = theirs.in_frames_of(ours)
    assert converted is not None
    for name in names:
        assert getattr(converted, name) == pytest.approx(getattr(ours, name), abs=1e-4)
    # What it maps: a point of the eval frames' normalised frame, into that of our Gaussians.
    in_eval = points @ converted.support_transform[:3, :3].T + converted.support_transform[:3, 3]
    in_train = in_eval @ converted.align_transform[:3, :3].T + converted.align_transform[:3, 3]
    assert in_train == pytest.approx(normalisation(train, points[:250])[0].apply(points), abs=1e-4)


def test_both_parsers_cases_occur() -> None:
    """The scenes above are upside down for one direction of the axes, and upright for the other."""
    for tail in (-1.0, 1.0):
        found = {without_flip(cameras(5, seed=1), lopsided(3, tail)[:250], k)[1] for k in (0, 1)}
        assert found == {True, False}


def test_alignment_of_other_frames_is_not_converted() -> None:
    moved = Sim3(1.0, rotation_from_vector([0, 0, 0.5]), np.zeros(3))
    one = FrameAlignment.between(Sim3.identity(), Sim3.identity())
    assert one.in_frames_of(FrameAlignment.between(moved, Sim3.identity())) is None
    nudged = FrameAlignment.between(Sim3(1.0, np.eye(3), np.full(3, 0.01)), Sim3.identity())
    assert one.in_frames_of(nudged) is None


@pytest.mark.parametrize("value", [np.array(3), np.array(["a", "b"]), np.array(b"gsplat")])
def test_normalization_that_is_no_text_is_refused(tmp_path: Path, value: np.ndarray) -> None:
    path = tmp_path / "stereo_to_eval.npz"
    write_alignment(path, FrameAlignment.between(Sim3.identity(), Sim3.identity()))
    np.savez(path, **dict(np.load(path)) | {"normalization": value})
    with pytest.raises(UserError, match=r"not an alignment \(normalization is no text"):
        read_alignment(path)
