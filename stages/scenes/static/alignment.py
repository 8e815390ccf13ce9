"""How the normalised frame of a training lies to that of the eval frames, as an npz.

Keys, each a float32 [4, 4] that maps homogeneous points:
    base_transform     train_norm_from_world
    support_transform  eval_norm_from_world
    align_transform    train_norm_from_eval_norm = base_transform @ inv(support_transform)
The file is called `<camera>_to_eval.npz`, though it leads from the eval frames to the training.
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
_CLOSE = 1e-5  # float32 keeps that much of transforms near 1
_ROTATION = 1e-3  # as of other files' rotations
_LARGEST = 1e12  # float32 still holds its products


@dataclass(frozen=True, eq=False)
class Alignment:
    """The transforms of one file."""

    align_transform: NDArray[np.float32]
    base_transform: NDArray[np.float32]
    support_transform: NDArray[np.float32]

    @staticmethod
    def between(train_norm_from_world: Sim3, eval_norm_from_world: Sim3) -> "Alignment":
        """From the two normalisations of one world."""
        base, support = train_norm_from_world.matrix, eval_norm_from_world.matrix
        matrices = (base @ np.linalg.inv(support), base, support)
        return Alignment(*(matrix.astype(np.float32) for matrix in matrices))

    def camera_to_train(self, camera: Camera) -> Camera:
        """A camera of the normalised eval frame in the normalised frame of the training."""
        align = self.align_transform.astype(np.float64)
        scale = np.cbrt(np.linalg.det(align[:3, :3]))
        rotation = camera.cam_from_world[:3, :3] @ align[:3, :3].T / scale
        centre = align[:3, :3] @ camera.centre + align[:3, 3]
        return camera.moved(rigid(rotation, -rotation @ centre))

    def is_like(self, other: "Alignment") -> bool:
        """Whether all transforms are equal up to float32's precision."""
        return all(
            np.allclose(getattr(self, key), getattr(other, key), rtol=_CLOSE, atol=_CLOSE)
            for key in _KEYS
        )


def write_alignment(path: Path, alignment: Alignment) -> None:
    """Write the npz."""
    with whole_file(path) as scratch, scratch.open("wb") as out:
        np.savez(out, **{key: getattr(alignment, key) for key in _KEYS})


def read_alignment(path: Path) -> Alignment:
    """Read what `write_alignment` wrote. Raises UserError for another file."""
    fix = "delete it; an evaluation writes it again"
    found = read_arrays(path, _KEYS, ", ".join(_KEYS), fix, "an alignment")
    try:
        transforms = [_similarity(key, finite(found[key])) for key in _KEYS]
    except (KeyError, ValueError) as error:
        told = f"not an alignment ({error})"
        raise UserError(path, told, expected=", ".join(_KEYS), fix=fix) from error
    return Alignment(*transforms)


def _similarity(key: str, values: NDArray) -> NDArray[np.float32]:
    """A transform [4, 4] as it is kept. Raises ValueError for one that is no similarity."""
    if values.shape != (4, 4):
        raise ValueError(f"{key} of shape {values.shape}")
    linear, size = values[:3, :3], np.abs(values).max()
    scale = np.cbrt(np.linalg.det(linear)) if size < _LARGEST else 0.0
    if not (scale > 0 and values[3].tolist() == [0, 0, 0, 1]):
        raise ValueError(f"{key} cannot be undone")
    turn = linear / scale
    if not np.allclose(turn @ turn.T, np.eye(3), atol=_ROTATION):
        raise ValueError(f"{key} does not keep angles")
    return values.astype(np.float32)
