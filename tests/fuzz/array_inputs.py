"""NumPy's archives: calibrations of raw sequences, and alignments."""

import io
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from damage import ODD_NUMBERS, Subject, bytes_of, sane_cameras
from raw_sequences import write_raw_sequence

from stages.scenes.frames import Sim3
from stages.scenes.sources.hi4d import open_sequence
from stages.scenes.sources.raw_sequence import RawCamera
from stages.scenes.static.alignment import FrameAlignment, read_alignment, write_alignment

_CAMERAS = ("4", "16", "28")


def subjects(folder: Path) -> list[Subject]:
    """A sequence's cameras, most of all; its span of frames; and an alignment."""
    root = write_raw_sequence(folder / "raw", frames=(21,), masks=(), span=(20, 22))
    cameras = Subject(
        root / "cameras" / "rgb_cameras.npz", _damage, partial(_cameras, root), _sane_cameras
    )
    frames = Subject(root / "meta.npz", _damage, partial(_cameras, root), _sane_cameras)
    path = folder / "left_to_eval.npz"
    frame = Sim3(2.0, np.eye(3), np.ones(3))
    write_alignment(path, FrameAlignment.between(frame, Sim3.identity()))
    return [cameras, cameras, frames, Subject(path, _damage, partial(read_alignment, path), _sane)]


def _damage(data: bytes, draw: Random) -> bytes:
    """Bytes of the archive, or one array with an odd number, another type or shape, or lost."""
    if draw.random() < 0.3:
        return bytes_of(data, draw)
    damaged = dict(np.load(io.BytesIO(data)))
    key = draw.choice(sorted(key for key in damaged if damaged[key].dtype.kind in "iuf"))
    value = damaged.pop(key)
    other = _array(value, draw)
    packed = io.BytesIO()
    np.savez(packed, **damaged, **({} if other is None else {key: other}))
    return packed.getvalue()


def _array(value: np.ndarray, draw: Random) -> np.ndarray | None:
    how = draw.randrange(8)
    if how == 0:
        return None
    if how == 1:
        return np.array([{"a": 1}], object)
    with np.errstate(all="ignore"):
        changed: dict[int, Any] = {
            2: lambda: value.astype(draw.choice(["U", "S", "c16", "?", "f2", "i1", "V4", "M8[s]"])),
            3: lambda: value.reshape(-1)[: draw.randrange(value.size)],
            4: lambda: value[None] if draw.random() < 0.5 else np.atleast_1d(value)[:1],
            5: lambda: np.atleast_1d(value)[::-1],
            6: lambda: value * draw.choice(ODD_NUMBERS),
        }
        if how in changed:
            return changed[how]()
    value = value.astype(np.float64)
    value[np.unravel_index(draw.randrange(value.size), value.shape)] = draw.choice(ODD_NUMBERS)
    return value


def _cameras(root: Path) -> list[RawCamera]:
    sequence = open_sequence(root, _CAMERAS)
    frames = sequence.common_frames(_CAMERAS)
    sane_cameras([sequence.camera(name, frames) for name in _CAMERAS])
    return [*sequence.cameras.values()]


def _sane_cameras(found: list[RawCamera]) -> None:
    assert [camera.name for camera in found] == [*_CAMERAS]
    for camera in found:
        assert camera.distortion.shape == (5,)
        assert np.isfinite(camera.distortion).all()


def _sane(found: FrameAlignment) -> None:
    for one in (found.align_transform, found.base_transform, found.support_transform):
        assert one.dtype == np.float32
        assert one.shape == (4, 4)
        assert np.isfinite(one).all()
        assert np.linalg.det(one[:3, :3]) > 0
