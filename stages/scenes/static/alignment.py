"""Transforms between the normalised frames of a training and of the eval frames, as an npz.

Keys, each transform a float32 [4, 4] that maps homogeneous points:
    base_transform     train_norm_from_world
    support_transform  eval_norm_from_world
    align_transform    train_norm_from_eval_norm = base_transform @ inv(support_transform)
    normalization      how the normalised frames follow from cameras and points, a text
    version            of this list, 1
Despite the file's name, `<camera>_to_eval.npz`, it maps from the eval frames to the training.

Parsers of gsplat's trainer differ in one step, a half turn about x where most points lie upside
down; files of those without it, and all files of other programs, lack the last two keys. Frames of
both differ by half turns about the axes, as do those of two libraries of linear algebra, whose
principal axes may point either way; `in_frames_of` converts them.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.files import whole_file
from stages.scenes.cameras import Array
from stages.scenes.formats.npz import finite, read_arrays
from stages.scenes.frames import Sim3

NORMALIZATION = (
    "gsplat: similarity_from_cameras, then align_principal_axes, then a half turn about x where "
    "median(z) > mean(z) of the points"
)
_VERSION = 1
_KEYS = ("align_transform", "base_transform", "support_transform")
_HALF_TURNS = tuple(
    np.diag([x, y, x * y, 1.0]) for x, y in itertools.product((1.0, -1.0), repeat=2)
)
_TOLERANCE = 1e-5  # of float32 transforms near 1
_OTHERS_TOLERANCE = 1e-3  # of those that another program computed from the same cameras and points
_ROTATION_TOLERANCE = 1e-3  # as for rotations in other files
_LARGEST = 1e12  # products of such values are finite in float32


@dataclass(frozen=True, eq=False)
class FrameAlignment:
    """The transforms of one file, each [4, 4]."""

    align_transform: NDArray[np.float32]
    base_transform: NDArray[np.float32]
    support_transform: NDArray[np.float32]
    normalization: str = ""  # of the frames; empty: the file does not say it

    @staticmethod
    def between(train_norm_from_world: Sim3, eval_norm_from_world: Sim3) -> "FrameAlignment":
        """The transforms between two normalisations of one world."""
        base, support = train_norm_from_world.matrix, eval_norm_from_world.matrix
        matrices = (base @ np.linalg.inv(support), base, support)
        single = (matrix.astype(np.float32) for matrix in matrices)
        return FrameAlignment(*single, normalization=NORMALIZATION)

    def in_frames_of(self, other: "FrameAlignment") -> "FrameAlignment | None":
        """This alignment in the frames of another of the same world; None if it is of other frames.

        Each of its two frames may differ from the other's by a half turn about an axis.
        """
        for base, support in itertools.product(_HALF_TURNS, repeat=2):
            turned = self._turned(base, support)
            if turned.is_like(other, _OTHERS_TOLERANCE):
                return turned
        return None

    def _turned(self, base: Array, support: Array) -> "FrameAlignment":
        """The alignment after both frames are turned, each by a rotation [4, 4]."""
        matrices = (
            base @ self.align_transform @ support.T,
            base @ self.base_transform,
            support @ self.support_transform,
        )
        single = (matrix.astype(np.float32) for matrix in matrices)
        return FrameAlignment(*single, normalization=self.normalization)

    def is_like(self, other: "FrameAlignment", tolerance: float = _TOLERANCE) -> bool:
        """Whether all transforms are equal, by default to float32 precision."""
        return all(
            np.allclose(getattr(self, key), getattr(other, key), rtol=tolerance, atol=tolerance)
            for key in _KEYS
        )


def write_alignment(path: Path, alignment: FrameAlignment) -> None:
    """Write the npz."""
    arrays = {key: getattr(alignment, key) for key in _KEYS}
    if alignment.normalization:
        arrays |= {
            "normalization": np.array(alignment.normalization),
            "version": np.array(_VERSION),
        }
    with whole_file(path) as scratch, scratch.open("wb") as out:
        np.savez(out, **arrays)


def read_alignment(path: Path) -> FrameAlignment:
    """Read a file of `write_alignment` or of another program, with or without `normalization`.

    Raises UserError for any other file.
    """
    fix = "delete it; an evaluation writes it again"
    keys = (*_KEYS, "normalization")
    arrays = read_arrays(path, keys, ", ".join(_KEYS), fix, "an alignment")
    try:
        transforms = [_similarity(key, finite(arrays[key])) for key in _KEYS]
        normalization = _text("normalization", arrays.get("normalization", np.array("")))
    except (KeyError, ValueError) as error:
        raise UserError(
            path, f"not an alignment ({error})", expected=", ".join(_KEYS), fix=fix
        ) from error
    return FrameAlignment(*transforms, normalization=normalization)


def _text(key: str, values: NDArray) -> str:
    """A single text. Raises ValueError for anything else."""
    if values.dtype.kind != "U" or values.ndim:
        raise ValueError(f"{key} is no text")
    return str(values)


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
