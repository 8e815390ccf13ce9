"""Sequences in Hi4D's raw layout: `cameras/rgb_cameras.npz`, `images/<camera>/<frame>.jpg`, masks.

Extrinsics are world to camera, OpenCV axes, metres; frame numbers start anywhere; `meta.npz` and
masks may be absent. Source: Hi4D's dataset.md and loaders of the release, one of which spells
the key `intrinsics` as `intirnsics`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.formats.npz import finite, read_arrays
from stages.scenes.image_folder import walk_folder
from stages.scenes.sources.raw_sequence import (
    FIX_CALIBRATION,
    RawCamera,
    RawSequence,
    check_names,
    check_placement,
    list_frames,
    mask_path,
    no_folder,
    plain,
    raw_camera,
)

_MASKS = Path("seg") / "img_seg_mask"
_SPELLINGS = ("intrinsics", "intirnsics")
_RELEASE, _COPY = "a file of Hi4D's release", "copy it there"
_FIX_META = "correct it, or remove meta.npz to use all frames"


def open_sequence(
    root: Path, cameras: Sequence[str], in_contact: bool | None = None
) -> RawSequence:
    """Open a sequence for these cameras; `in_contact` takes frames with contact alone, or without.

    Raises UserError that names what is missing and where.
    """
    sequence_root = _nested_root(root)
    calibration = _read_cameras(sequence_root / "cameras" / "rgb_cameras.npz", cameras)
    frames = {name: list_frames(sequence_root / "images" / name) for name in cameras}
    if in_contact is not None:
        touching = _contact_frames(sequence_root / "meta.npz")
        frames = {
            name: {k: path for k, path in one.items() if (k in touching) is in_contact}
            for name, one in frames.items()
        }
    masks = {name: _masks(sequence_root / _MASKS / name, frames[name]) for name in cameras}
    span = _span(sequence_root / "meta.npz")
    return RawSequence(sequence_root, calibration, frames, masks, span, "meta.npz")


def _masks(folder: Path, frames: Mapping[int, Path]) -> dict[int, tuple[Path, ...]]:
    """Masks of all people by frame: `all`, or both of `0` and `1`; none without folders."""
    kinds = ("all",) if (folder / "all").is_dir() else ("0", "1")
    folders = [folder / kind for kind in kinds if (folder / kind).is_dir()]
    if not folders:
        return {}
    return {
        frame: tuple(mask_path(one, path.stem) for one in folders) for frame, path in frames.items()
    }


def _span(meta: Path) -> range | None:
    """Frames from `start` to `end` (inclusive) of meta.npz; None without them."""
    values = read_arrays(meta, ("start", "end")) if meta.is_file() else {}
    if len(values) < 2:
        return None
    first, last = (_frame_number(meta, key, values[key]) for key in ("start", "end"))
    if last < first:
        got = f"start {first} lies after end {last}"
        raise UserError(meta, got, expected="the first and the last frame", fix=_FIX_META)
    return range(first, last + 1)


def _contact_frames(meta: Path) -> set[int]:
    """Frames in which the people touch, `contact_ids` of meta.npz. Raises UserError without."""
    expected = "contact_ids, the numbers of frames with contact"
    values = read_arrays(
        meta, ("contact_ids",), expected, "take `contact` out of the scene's entry"
    )
    if "contact_ids" not in values:
        raise UserError(meta, "no contact_ids", expected=expected)
    return {
        _frame_number(meta, "contact_ids", one) for one in values["contact_ids"].ravel()[:, None]
    }


def _nested_root(root: Path) -> Path:
    """`root`, or the one folder below it with `cameras/`, as archives nest differently."""
    if not root.is_dir():
        raise no_folder(root, "a raw sequence with cameras/ and images/")
    if (root / "cameras").is_dir():
        return root
    nested = sorted(path.parent for path in walk_folder(root).folders if path.name == "cameras")
    if len(nested) != 1:
        raise UserError(
            root,
            f"{len(nested)} folders with cameras/",
            expected=f"{root / 'cameras' / 'rgb_cameras.npz'} and {root / 'images'}",
            fix="put one sequence there, for example pair15/fight15",
        )
    return nested[0]


def _read_cameras(path: Path, cameras: Sequence[str]) -> dict[str, RawCamera]:
    values = read_arrays(path, ("ids", *_SPELLINGS, "extrinsics", "dist_coeffs"), _RELEASE, _COPY)
    K = next((values[key] for key in _SPELLINGS if key in values), None)
    if K is None or "ids" not in values or "extrinsics" not in values:
        raise UserError(
            path, f"keys {', '.join(values) or 'none'}", expected="ids, intrinsics, extrinsics"
        )
    names = _ids(path, values["ids"])
    check_names(path, [name for name in cameras if plain(name) not in names], names)
    count, poses = len(names), values["extrinsics"]
    shapes = {"intrinsics": K.shape, "extrinsics": poses.shape}
    if K.shape != (count, 3, 3) or poses.shape not in ((count, 3, 4), (count, 4, 4)):
        raise UserError(path, f"shapes {shapes}", expected=f"({count}, 3, 3) and ({count}, 3, 4)")
    distortion = _coefficients(path, values.get("dist_coeffs", np.zeros((count, 5))), count)
    rows = {name: names.index(plain(name)) for name in cameras}
    raw = {
        name: raw_camera(f"{path}  camera {name}", name, K[i], poses[i], distortion[i])
        for name, i in rows.items()
    }
    check_placement(path, raw)
    return raw


def _ids(path: Path, values: NDArray) -> list[str]:
    """Names of the cameras in the order of the file: numbers or words, normalised by `plain`."""
    try:
        names = _texts(values.ravel())
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or not all(names) or not names:
            raise ValueError(
                f"several of {', '.join(repeated)}" if repeated else "none, or an empty one"
            )
    except ValueError as error:
        raise UserError(
            f"{path}  ids",
            str(error),
            expected="one integer or word per camera",
            fix=FIX_CALIBRATION,
        ) from error
    return names


def _texts(values: NDArray) -> list[str]:
    """Numbers or words [C] as normalised text. Raises ValueError for anything else."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "U":
        return [plain(name) for name in values.tolist()]
    numbers = finite(values)
    if (numbers != np.rint(numbers)).any():
        raise ValueError(f"{numbers.tolist()}")
    return [str(int(number)) for number in numbers]


def _coefficients(path: Path, values: NDArray, count: int) -> NDArray:
    """Distortion by camera, [C, N]."""
    if values.ndim < 2 or len(values) != count:
        raise UserError(
            f"{path}  dist_coeffs",
            f"shape {values.shape} for {count} cameras",
            expected=f"({count}, 5): one row per camera",
            fix=FIX_CALIBRATION,
        )
    return values.reshape(count, -1) if values.size else np.zeros((count, 5))


def _frame_number(path: Path, key: str, value: NDArray) -> int:
    try:
        (number,) = finite(value.ravel())
        if number != np.rint(number):
            raise ValueError(f"{number:g}")
    except ValueError as error:
        got = f"{key} is not a frame number ({error})"
        raise UserError(path, got, expected="one integer", fix=_FIX_META) from error
    return int(number)
