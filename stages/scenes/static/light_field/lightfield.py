"""Light fields as grids of views, in the formats that decoders write.

PlenoptiCam's `viewpoints_<P>px/JJ_II.png` and plain `RR_CC.png` (row, column), the LFToolbox's
`*_Decoded.mat` (LF [row, column, y, x, channel]) and ESLF images, where every view has one pixel
below each microlens. A raw light field is decoded first.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat

from stages.run.errors import UserError
from stages.run.files import parse_json
from stages.scenes.image_folder import walk_folder
from stages.scenes.images import Pixels, image_size, read_image

Cell = tuple[int, int]  # (row, column)

_VIEW = re.compile(r"(\d{2,3})_(\d{2,3})\.(?:png|jpg|jpeg|tif|tiff)", re.IGNORECASE)
_ESLF = re.compile(r".*eslf.*\.png", re.IGNORECASE)
_RAW = (".lfr", ".lfp", ".raw")
_ESLF_VIEWS = 14  # per side, as Lytro Desktop and the LFToolbox write it
_PLENOPTICAM_VIEWS = 13  # whole views of a Lytro Illum, per side


@dataclass(frozen=True, eq=False)
class LightField:
    """Views by (row, column), with the indices of the full grid."""

    views: Mapping[Cell, Path | Pixels]
    metadata: Mapping[str, Any]  # of the raw file, if its decoder kept any

    def read(self, cell: Cell) -> Pixels:
        """One view, [H, W, 3]."""
        view = self.views[cell]
        return read_image(view) if isinstance(view, Path) else view

    @property
    def centre(self) -> Cell:
        """The middle view; in an even number of rows or columns, that before the middle."""
        rows, columns = (sorted({cell[axis] for cell in self.views}) for axis in (0, 1))
        return rows[(len(rows) - 1) // 2], columns[(len(columns) - 1) // 2]


def is_lightfield(path: Path) -> bool:
    """Whether a file is by its name a whole light field, decoded or raw."""
    return _is_decoded(path) or path.suffix.lower() in _RAW


def read_lightfield(
    path: Path, inner: int, scratch: Path, decoder: str = "", calibration: str = ""
) -> LightField:
    """Read a light field without its outer rings of views.

    Args:
        path: its file, or a folder with it.
        inner: number of outer rings to leave out.
        scratch: a folder for what the decoder writes.
        decoder: a Python script, see `decode`; empty for PlenoptiCam.
        calibration: Lytro's calibration archive for the decoder; empty for none.

    Raises UserError for none or several light fields, and for a grid with holes.
    """
    source = path if path.is_file() else _source(path)
    if source.suffix.lower() in _RAW:
        source = decode(source, inner, scratch, decoder, calibration)
    if source.is_dir():
        views: dict[Cell, Any] = _grid_of_files(source)
    elif source.suffix.lower() == ".mat":
        views = _grid_of_mat(source)
    else:
        views = _grid_of_eslf(source)
    _check_whole(source, views)
    return LightField(_without_rings(source, views, inner), _metadata(source))


def decode(lfr: Path, inner: int, scratch: Path, decoder: str, calibration: str) -> Path:
    """Decode a raw light field by the user's decoder or by PlenoptiCam; return the views' folder.

    Args:
        lfr: the raw file.
        inner: number of outer rings that a user's decoder may leave out.
        scratch: a folder for the views.
        decoder: a script, called `python DECODER FILE FOLDER --inner N [--calib ARCHIVE]`, that
            writes RR_CC.png with the indices of the full grid below FOLDER; empty for PlenoptiCam.
        calibration: Lytro's calibration archive; empty for none.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    if decoder:
        command = [sys.executable, decoder, str(lfr), str(scratch), "--inner", str(inner)]
        command += ["--calib", calibration] if calibration else []
    else:
        program = shutil.which("plenopticam")
        if program is None:
            raise UserError(
                lfr,
                "a raw light field, and no decoder for it",
                expected="decoded views, the program plenopticam, or static.lf_to_colmap",
                fix="`pipx install plenopticam` (it needs an environment of its own), or decode "
                "it elsewhere and put its viewpoints_<P>px folder here",
            )
        # PlenoptiCam writes beside its input, so that is a copy.
        copy = scratch / lfr.name
        shutil.copyfile(lfr, copy)
        command = [program, "-f", str(copy), "-p", str(_PLENOPTICAM_VIEWS)]
        command += ["-c", calibration] if calibration else []
    result = subprocess.run(command, capture_output=True, text=True)
    folders = {path.parent for path in scratch.rglob("*") if _VIEW.fullmatch(path.name)}
    if result.returncode or len(folders) != 1:
        output = (result.stderr or result.stdout).strip()[-500:]
        raise UserError(
            lfr,
            f"its decoder exited with {result.returncode} and wrote {len(folders)} grids: {output}",
            expected="one folder of RR_CC.png",
        )
    return folders.pop()


def _source(folder: Path) -> Path:
    """The one light field below a folder; decoded ones take precedence over raw ones."""
    files = sorted(walk_folder(folder).files)
    grids = {path.parent for path in files if _VIEW.fullmatch(path.name)}
    decoded = [path for path in files if _is_decoded(path)]
    raw = [path for path in files if path.suffix.lower() in _RAW]
    sources = [*sorted(grids), *decoded] or raw
    if len(sources) != 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in sources[:4]) or "nothing"
        raise UserError(
            folder,
            f"{len(sources)} light fields ({names})",
            expected="one: viewpoints_<P>px/JJ_II.png, RR_CC.png, *_Decoded.mat, *eslf.png, *.LFR",
        )
    return sources[0]


def _is_decoded(path: Path) -> bool:
    return path.suffix.lower() == ".mat" or _ESLF.fullmatch(path.name) is not None


def _grid_of_files(folder: Path) -> dict[Cell, Any]:
    views = {}
    for path in sorted(folder.iterdir()):
        match = _VIEW.fullmatch(path.name)
        if match:
            views[int(match[1]), int(match[2])] = path
    sizes = {image_size(path) for path in views.values()}
    if len(sizes) > 1:
        raise UserError(
            folder, f"views of {len(sizes)} sizes: {sorted(sizes)}", expected="one size"
        )
    return views


def _grid_of_mat(path: Path) -> dict[Cell, Any]:
    try:
        # HDF5, as MATLAB writes it from 7.3 on, lists the axes backwards.
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                values = file["LF"][()].T if "LF" in file else None
        else:
            values = loadmat(path, variable_names=["LF"]).get("LF")
    except (ValueError, OSError, TypeError, NotImplementedError) as error:
        raise UserError(path, f"not a MATLAB file ({error})") from error
    if values is None or values.ndim != 5 or values.shape[-1] not in (3, 4):
        got = "no LF" if values is None else f"LF of shape {values.shape}"
        raise UserError(path, got, expected="LF [row, column, y, x, 3 or 4]")
    # The fourth channel is the decoder's weight of each ray.
    return _cells(_unit(values[..., :3]))


def _grid_of_eslf(path: Path) -> dict[Cell, Any]:
    image, side = read_image(path), _ESLF_VIEWS
    height, width = image.shape[:2]
    if height % side or width % side:
        raise UserError(
            path, f"{width}x{height} px", expected=f"multiples of {side}, one pixel per view"
        )
    lenslets = image.reshape(height // side, side, width // side, side, 3)
    return _cells(lenslets.transpose(1, 3, 0, 2, 4))


def _unit(values: np.ndarray) -> np.ndarray:
    """Integers of any depth as float32 in [0, 1]."""
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) / np.iinfo(values.dtype).max
    return np.clip(values.astype(np.float32), 0, 1)


def _cells(values: np.ndarray) -> dict[Cell, Any]:
    rows, columns = values.shape[:2]
    return {(r, c): np.ascontiguousarray(values[r, c]) for r in range(rows) for c in range(columns)}


def _check_whole(source: Path, views: Mapping[Cell, Any]) -> None:
    rows, columns = (sorted({cell[axis] for cell in views}) for axis in (0, 1))
    missing = [
        f"{r:02d}_{c:02d}"
        for r in range(rows[0], rows[-1] + 1)
        for c in range(columns[0], columns[-1] + 1)
        if (r, c) not in views
    ]
    if missing:
        raise UserError(
            source,
            f"a grid with holes: {len(missing)} views missing ({', '.join(missing[:5])})",
            expected=f"every view of rows {rows[0]}-{rows[-1]}, columns {columns[0]}-{columns[-1]}",
            fix="decode it again, or remove whole rows and columns",
        )


def _without_rings(source: Path, views: Mapping[Cell, Any], inner: int) -> dict[Cell, Any]:
    """Views without the `inner` outer rings of the full grid.

    Indices of the full grid are symmetric about its middle: a grid that starts at 2 lost two rings
    before, which are not removed again.
    """
    sides = [min(c[axis] for c in views) + max(c[axis] for c in views) for axis in (0, 1)]
    kept = {
        cell: view
        for cell, view in views.items()
        if all(inner <= at <= last - inner for at, last in zip(cell, sides, strict=True))
    }
    if len(kept) < 2:
        raise UserError(
            source,
            f"{len(kept)} of {len(views)} views left without {inner} outer rings",
            expected="at least 2",
            fix="lower static.lf_inner",
        )
    return kept


def _metadata(source: Path) -> dict[str, Any]:
    """Metadata of the raw file: a JSON file beside the views or beside their folder."""
    folders = [source, source.parent] if source.is_dir() else [source.parent]
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        try:
            metadata = parse_json(path.read_text())
        except ValueError:
            continue
        if isinstance(metadata, dict):
            return metadata
    return {}
