"""Sequences of ActorsHQ: one scale's folder with `calibration.csv`, `rgbs/` and `masks/`.

Rows are name, w, h, a rotation vector and a translation from camera to world (OpenCV's axes,
metres), then focal lengths and the principal point as shares of the size. Images are
`rgbs/Cam001/Cam001_rgb000000.jpg`, masks `masks/Cam001/Cam001_mask000000.png`.
Source: README.md of synthesiaresearch/humanrf.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import rigid, rotation_from_vector
from stages.scenes.sources.raw_sequence import (
    FIX_CALIBRATION,
    RawCamera,
    RawSequence,
    check_names,
    check_placement,
    find_root,
    list_frames,
    masks_beside,
    raw_camera,
)

_COLUMNS = ("w", "h", "rx", "ry", "rz", "tx", "ty", "tz", "fx", "fy", "px", "py")
_EXPECTED = "one scale of a sequence, such as 4x, with calibration.csv and rgbs/"


def open_sequence(root: Path, cameras: Sequence[str]) -> RawSequence:
    """Open a sequence for these cameras. Raises UserError that names what is missing and where."""
    root = find_root(root, ["calibration.csv"], _EXPECTED)
    path = root / "calibration.csv"
    rows = _read_rows(path)
    check_names(path, cameras, list(rows))
    calibration = {name: _camera(f"{path}  camera {name}", name, rows[name]) for name in cameras}
    check_placement(path, calibration)
    frames, masks = {}, {}
    for name in cameras:
        numbers = re.compile(rf"{re.escape(name)}_rgb(\d+)")
        frames[name] = list_frames(root / "rgbs" / name, numbers)
        masks[name] = masks_beside(root / "masks" / name, frames[name], _mask_name)
    return RawSequence(root, calibration, frames, masks, image_root="rgbs")


def _mask_name(stem: str) -> str:
    """The stem of an image's mask.

    >>> _mask_name("Cam001_rgb000012")
    'Cam001_mask000012'
    """
    return "_mask".join(stem.rsplit("_rgb", 1))


def _read_rows(path: Path) -> dict[str, Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(path, f"cannot be read ({error})", expected=_EXPECTED) from error
    header = ("name", *_COLUMNS)
    missing = [key for key in header if not rows or key not in rows[0]]
    if missing:
        got = f"no column {', '.join(missing)}" if rows else "no row"
        raise UserError(path, got, expected=f"columns {','.join(header)}")
    named = {str(row["name"]).strip(): row for row in rows}
    if len(named) < len(rows):
        raise UserError(path, "two rows of one camera", expected="one row per camera")
    return named


def _camera(where: str, name: str, row: Mapping[str, str]) -> RawCamera:
    try:
        numbers = {key: float(row[key]) for key in _COLUMNS}
        if not np.isfinite(list(numbers.values())).all():
            raise ValueError("NaN or infinity")
    except (TypeError, ValueError) as error:
        expected = f"numbers in {','.join(_COLUMNS)}"
        raise UserError(where, str(error), expected=expected, fix=FIX_CALIBRATION) from error
    width, height = numbers["w"], numbers["h"]
    K = np.array(
        [
            [numbers["fx"] * width, 0, numbers["px"] * width],
            [0, numbers["fy"] * height, numbers["py"] * height],
            [0, 0, 1],
        ]
    )
    rotation = rotation_from_vector([numbers[key] for key in ("rx", "ry", "rz")]).T
    centre = np.array([numbers[key] for key in ("tx", "ty", "tz")])
    pose = rigid(rotation, -rotation @ centre)
    return raw_camera(where, name, K, pose, np.zeros(5), (round(width), round(height)))
