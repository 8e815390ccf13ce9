"""Damaged calibrations of raw sequences: each is read, or told of."""

import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from damage import ODD_NUMBERS, bytes_of, outcome

from stages.scenes.hi4d import layout_error

INPUTS = 200
CAMERAS = ("4", "16", "28")


def arrays_of(arrays: dict[str, np.ndarray], draw: random.Random) -> dict[str, np.ndarray]:
    """One array with an odd number, another type or shape, lost, or of other cameras."""
    damaged = {key: value.copy() for key, value in arrays.items()}
    key = draw.choice(sorted(key for key in damaged if damaged[key].dtype.kind in "iuf"))
    value = damaged.pop(key)
    how = draw.randrange(7)
    if how == 0:
        return damaged
    changed: dict[int, Any] = {
        1: lambda: value.astype(draw.choice(["U", "S", "c16", "?", "f2", "i1"])),
        2: lambda: value.reshape(-1)[: draw.randrange(value.size)],
        3: lambda: value[None] if draw.random() < 0.5 else np.atleast_1d(value)[:1],
        4: lambda: np.atleast_1d(value)[::-1],
        5: lambda: value * draw.choice(ODD_NUMBERS),
    }
    if how in changed:
        with np.errstate(all="ignore"):
            return damaged | {key: changed[how]()}
    value = value.astype(np.float64)
    value[np.unravel_index(draw.randrange(value.size), value.shape)] = draw.choice(ODD_NUMBERS)
    return damaged | {key: value}


def test_a_damaged_calibration_is_read_or_told_of(
    tmp_path: Path, raw_sequence: Callable[..., Path]
) -> None:
    root = raw_sequence(tmp_path / "raw", frames=(21,), masks=(), span=(20, 22))
    files = [root / "cameras" / "rgb_cameras.npz", root / "meta.npz"]
    whole = [path.read_bytes() for path in files]
    draw, seen = random.Random(0), Counter()

    def read() -> None:
        error = layout_error(root, CAMERAS)
        if error:
            raise error

    for number in range(INPUTS):
        place = int(draw.random() < 0.2)
        if draw.random() < 0.25:
            data = bytes_of(whole[place], draw)
        else:
            packed = io.BytesIO()
            np.savez(packed, **arrays_of(dict(np.load(files[place])), draw))
            data = packed.getvalue()
        files[place].write_bytes(data)
        seen[outcome(read, f"input {number}, {files[place].name}")] += 1
        files[place].write_bytes(whole[place])
    assert layout_error(root, CAMERAS) is None
    assert min(seen["told"], seen["result"]) > INPUTS // 20, "damage of one kind alone"
