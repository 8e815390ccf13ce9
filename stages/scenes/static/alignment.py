"""Transforms between the normalised frames of a training and of the eval frames, as an npz.

Keys, each a float32 [4, 4] that maps homogeneous points:
    base_transform     train_norm_from_world
    support_transform  eval_norm_from_world
    align_transform    train_norm_from_eval_norm = base_transform @ inv(support_transform)
Despite the file's name, `<camera>_to_eval.npz`, it maps from the eval frames to the training.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.files import whole_file
from stages.scenes.cameras import Camera, rigid
from stages.scenes.formats.npz import finite, read_arrays
from stages.scenes.frames import Sim3

_KEYS = ("align_transform", "base_transform", "support_transform")
_TOLERANCE = 1e-5  # of float32 transforms near 1
_ROTATION_TOLERANCE = 1e-3  # as for rotations in other files
_LARGEST = 1e12  # products of such values are finite in float32


@dataclass(frozen=True, eq=False)
class FrameAlignment:
    """The transforms of one file, each [4, 4]."""

    align_transform: NDArray[np.float32]
    base_transform: NDArray[np.float32]
    support_transform: NDArray[np.float32]

    @staticmethod
    def between(train_norm_from_world: Sim3, eval_norm_from_world: Sim3) -> "FrameAlignment":
        """The transforms between two normalisations of one world."""
        base, support = train_norm_from_world.matrix, eval_norm_from_world.matrix
        matrices = (base @ np.linalg.inv(support), base, support)
        return FrameAlignment(*(matrix.astype(np.float32) for matrix in matrices))

    def camera_to_train(self, camera: Camera) -> Camera:
        """Take a camera from the normalised eval frame to the normalised frame of the training."""
        align = self.align_transform.astype(np.float64)
        scale = np.cbrt(np.linalg.det(align[:3, :3]))
        rotation = camera.cam_from_world[:3, :3] @ align[:3, :3].T / scale
        centre = align[:3, :3] @ camera.centre + align[:3, 3]
        return camera.moved(rigid(rotation, -rotation @ centre))

    def is_like(self, other: "FrameAlignment") -> bool:
        """Whether all transforms are equal to float32 precision."""
        return all(
            np.allclose(getattr(self, key), getattr(other, key), rtol=_TOLERANCE, atol=_TOLERANCE)
            for key in _KEYS
        )


def write_alignment(path: Path, alignment: FrameAlignment) -> None:
    """Write the npz."""
    with whole_file(path) as scratch, scratch.open("wb") as out:
        np.savez(out, **{key: getattr(alignment, key) for key in _KEYS})


def read_alignment(path: Path) -> FrameAlignment:
    """Read a file of `write_alignment`. Raises UserError for any other file."""
    fix = "delete it; an evaluation writes it again"
    arrays = read_arrays(path, _KEYS, ", ".join(_KEYS), fix, "an alignment")
    try:
        transforms = [_similarity(key, finite(arrays[key])) for key in _KEYS]
    except (KeyError, ValueError) as error:
        raise UserError(
            path, f"not an alignment ({error})", expected=", ".join(_KEYS), fix=fix
        ) from error
    return FrameAlignment(*transforms)


def _similarity(key: str, values: NDArray) -> NDArray[np.float32]:
    """A transform [4, 4] as float32. Raises ValueError when it is no similarity."""
    if values.shape != (4, 4):
        raise ValueError(f"{key} of shape {values.shape}")
    linear, size = values[:3, :3], np.abs(values).max()
    scale = np.cbrt(np.linalg.det(linear)) if size < _LARGEST else 0.0
    if not (scale > 0 and values[3].tolist() == [0, 0, 0, 1]):
        raise ValueError(f"{key} is not invertible")
    rotation = linear / scale
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_TOLERANCE):
        raise ValueError(f"{key} does not preserve angles")
    return values.astype(np.float32)
