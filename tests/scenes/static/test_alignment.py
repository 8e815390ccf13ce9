"""Frame alignments: their direction, by a round trip through two normalised frames."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, look_at, rotation_from_vector
from stages.scenes.frames import Sim3, normalisation
from stages.scenes.static.alignment import FrameAlignment, read_alignment, write_alignment


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
    held_out = cameras(4, seed=2)
    support, _ = normalisation(held_out, points)
    alignment = FrameAlignment.between(train, support)
    in_eval = support.apply(points)
    homogeneous = np.concatenate([in_eval, np.ones((len(points), 1))], axis=1)
    in_train = (homogeneous @ alignment.align_transform.T.astype(float))[:, :3]
    assert in_train == pytest.approx(train.apply(points), abs=1e-5)
    assert alignment.base_transform == pytest.approx(train.matrix, abs=1e-5)
    for camera in held_out:
        aligned = alignment.camera_to_train(support.apply_camera(camera))
        wanted = train.apply_camera(camera)
        assert aligned.cam_from_world == pytest.approx(wanted.cam_from_world, abs=1e-5)
        assert aligned.project(train.apply(points))[0] == pytest.approx(
            camera.project(points)[0], abs=1e-2
        )


def test_there_and_back_is_the_identity() -> None:
    first = Sim3(2.0, rotation_from_vector([0.3, -0.2, 1.0]), np.array([1.0, 2, 3]))
    second = Sim3(0.5, rotation_from_vector([-1.0, 0.5, 0.2]), np.array([-1.0, 0, 4]))
    there, back = FrameAlignment.between(first, second), FrameAlignment.between(second, first)
    both = there.align_transform.astype(float) @ back.align_transform.astype(float)
    assert both == pytest.approx(np.eye(4), abs=1e-5)


def test_file_has_the_three_keys_in_float32(tmp_path: Path) -> None:
    alignment = FrameAlignment.between(Sim3(2.0, np.eye(3), np.ones(3)), Sim3.identity())
    path = tmp_path / "stereo_to_eval.npz"
    write_alignment(path, alignment)
    with np.load(path) as stored:
        assert sorted(stored) == ["align_transform", "base_transform", "support_transform"]
        assert {stored[key].dtype for key in stored} == {np.dtype("float32")}
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
