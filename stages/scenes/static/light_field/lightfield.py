"""Light fields as grids of views, in the formats that decoders write.

PlenoptiCam's `viewpoints_<P>px/JJ_II.png`, `RR_CC.png` (row, column) and names such as
`view_03_04.jpg` or `r03_c04.png`, the LFToolbox's `*_Decoded.mat` (LF [row, column, y, x, channel])
and ESLF images, where every view has one pixel below each microlens. A raw light field is decoded
first.
"""

import re
import shlex
import shutil
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
from stages.run.plurals import counted, first_few
from stages.run.process.processes import run_group
from stages.scenes.image_folder import walk_folder
from stages.scenes.images import Pixels, image_size, read_image, resize

Cell = tuple[int, int]  # (row, column)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_VIEW = re.compile(
    r"(?:(?:view|sai|lf|image|img)_*)?"
    r"(?:(\d{2,3})_(\d{2,3})|r(?:ow)?_?(\d{1,3})_*c(?:ol(?:umn)?)?_?(\d{1,3}))"
    rf"(?:{'|'.join(map(re.escape, _SUFFIXES))})",
    re.IGNORECASE,
)
# Of a terminal: CSI and its parameters, OSC and its text, and escapes of two characters.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?")
_ESLF = re.compile(r".*eslf.*\.png", re.IGNORECASE)
_RAW = (".lfr", ".lfp", ".raw")
_ESLF_VIEWS = 14  # per side, as Lytro Desktop and the LFToolbox write it
_PLENOPTICAM_VIEWS = 13  # whole views of a Lytro Illum, per side
_LAST_LINES = 12  # of a decoder's output, in a message


@dataclass(frozen=True, eq=False)
class LightField:
    """Views by (row, column), with the indices of the full grid."""

    views: Mapping[Cell, Path | Pixels]
    metadata: Mapping[str, Any]  # of the raw file, if its decoder kept any
    downscale: int = 1  # views are read at one n-th of their sides

    def read(self, cell: Cell) -> Pixels:
        """One view, [H, W, 3]."""
        view = self.views[cell]
        image = read_image(view) if isinstance(view, Path) else view
        return resize(image, *self.size(cell))

    def size(self, cell: Cell) -> tuple[int, int]:
        """(width, height) of a view as it is read, px."""
        view = self.views[cell]
        width, height = image_size(view) if isinstance(view, Path) else view.shape[1::-1]
        return max(1, round(width / self.downscale)), max(1, round(height / self.downscale))

    @property
    def centre(self) -> Cell:
        """The middle view; in an even number of rows or columns, that before the middle."""
        rows, columns = (sorted({cell[axis] for cell in self.views}) for axis in (0, 1))
        return rows[(len(rows) - 1) // 2], columns[(len(columns) - 1) // 2]


def is_lightfield(path: Path) -> bool:
    """Whether a file is by its name a whole light field, decoded or raw."""
    return _is_decoded(path) or is_raw(path)


def is_raw(path: Path) -> bool:
    """Whether a file is by its name a raw light field."""
    return path.suffix.lower() in _RAW


def has_views(folder: Path) -> bool:
    """Whether there are decoded views below a folder."""
    return any(_is_decoded(path) or _cell(path) for path in walk_folder(folder).files)


def read_lightfield(
    path: Path,
    inner: int,
    scratch: Path,
    decoder: str = "",
    calibration: str = "",
    downscale: int = 1,
) -> LightField:
    """Read a light field without its outer rings of views.

    Args:
        path: its file, or a folder with it.
        inner: number of outer rings to leave out.
        scratch: a folder for what the decoder writes.
        decoder: a user's program, see `decode`; empty for PlenoptiCam.
        calibration: Lytro's calibration archive for the decoder; empty for none.
        downscale: views are read at one n-th of their sides.

    Raises UserError for none or several light fields, and for a grid with holes.
    """
    source = path if path.is_file() else _source(path)
    if is_raw(source):
        source = decode(source, inner, scratch, decoder, calibration)
    if source.is_dir():
        views: dict[Cell, Any] = _grid_of_files(source)
    elif source.suffix.lower() == ".mat":
        views = _grid_of_mat(source)
    else:
        views = _grid_of_eslf(source)
    _check_whole(source, views)
    return LightField(_without_rings(source, views, inner), _metadata(source), downscale)


def check_decoder(decoder: str) -> None:
    """Raise UserError when the user's decoder is set and no file. `~` is not expanded."""
    if decoder and not Path(decoder).is_file():
        raise UserError(
            f"static.lf_to_colmap (LF_TO_COLMAP): {decoder}",
            "is a folder" if Path(decoder).is_dir() else "no such file",
            expected="a Python script that decodes raw light fields, or empty",
        )


def decode(lfr: Path, inner: int, scratch: Path, decoder: str, calibration: str) -> Path:
    """Decode a raw light field by the user's decoder or by PlenoptiCam; return the views' folder.

    Args:
        lfr: the raw file.
        inner: number of outer rings that a user's decoder may leave out.
        scratch: a folder for the views.
        decoder: a Python script, or a program, called in `scratch` with absolute paths as
            `DECODER --lfr FILE --out_dir FOLDER --inner N [--calib_tar ARCHIVE]`, that writes the
            views, named by row and column of the full grid, into one folder somewhere below
            FOLDER; other files, such as sparse/, are ignored. Empty for PlenoptiCam.
        calibration: Lytro's calibration archive; empty for none.
    """
    scratch = scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    if decoder:
        check_decoder(decoder)
        script = Path(decoder).resolve()
        command = [sys.executable] if script.suffix == ".py" else []
        command += [str(script), "--lfr", str(lfr.resolve()), "--out_dir", str(scratch)]
        command += ["--inner", str(inner)]
        command += ["--calib_tar", str(Path(calibration).resolve())] if calibration else []
    else:
        program = shutil.which("plenopticam")
        if program is None:
            raise UserError(
                lfr,
                "a raw light field, and no decoder for it",
                expected="decoded views, the program plenopticam, or static.lf_to_colmap "
                "(LF_TO_COLMAP)",
                fix="`pipx install plenopticam` (it needs an environment of its own), or decode "
                "it elsewhere and put its viewpoints_<P>px folder here",
            )
        # PlenoptiCam writes beside its input, so that is a copy.
        copy = scratch / lfr.name
        shutil.copyfile(lfr, copy)
        command = [program, "-f", str(copy), "-p", str(_PLENOPTICAM_VIEWS)]
        command += ["-c", str(Path(calibration).resolve())] if calibration else []
    try:
        code, output = run_group(command, scratch)
    except OSError as error:
        raise UserError(
            f"static.lf_to_colmap (LF_TO_COLMAP): {decoder}",
            f"cannot be run: {error.strerror}",
            expected="a Python script, *.py, or a program with permission to run",
        ) from error
    folders = sorted({path.parent for path in scratch.rglob("*") if _cell(path)})
    if code or len(folders) != 1:
        printed = [_without_controls(line) for line in output.strip().splitlines()]
        lines = printed[-_LAST_LINES:] or ["(nothing)"]
        grids = ", ".join(str(folder) for folder in folders) or f"no views{_others(scratch)}"
        raise UserError(
            lfr,
            f"its decoder exited with {code} and wrote {grids}",
            expected="exit code 0, and one folder of views RR_CC with one of the suffixes "
            f"{', '.join(_SUFFIXES)}",
            hint="\n".join(
                [f"it ran as {shlex.join(command)}", f"in {scratch}, and printed", *lines]
            ),
        )
    return folders[0]


def _others(scratch: Path) -> str:
    """What a decoder wrote that is no view, in words; empty for nothing."""
    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    some = first_few([path.relative_to(scratch).as_posix() for path in files])
    return _without_controls(f" but {counted(len(files), 'other file')} ({some})") if files else ""


def _without_controls(line: str) -> str:
    """A line of a program's output without terminal escapes and other control characters.

    >>> _without_controls("\x1b[31mno\x1b[0m lens\x07")
    'no lens'
    """
    return "".join(c for c in _ESCAPE.sub("", line) if c.isprintable() or c == "\t")


def _cell(path: Path) -> Cell | None:
    """(row, column) by the name of a view's file; None for other files.

    >>> [_cell(Path(name)) for name in ("03_04.png", "view_03_04.jpg", "r3_c4.png", "IMG_0042.png")]
    [(3, 4), (3, 4), (3, 4), None]
    """
    match = _VIEW.fullmatch(path.name)
    if match is None:
        return None
    row, column = (number for number in match.groups() if number is not None)
    return int(row), int(column)


def _source(folder: Path) -> Path:
    """The one light field below a folder; decoded ones take precedence over raw ones."""
    files = sorted(walk_folder(folder).files)
    grids = {path.parent for path in files if _cell(path)}
    decoded = [path for path in files if _is_decoded(path)]
    raw = [path for path in files if is_raw(path)]
    sources = [*sorted(grids), *decoded] or raw
    if len(sources) != 1:
        names = first_few([path.relative_to(folder).as_posix() for path in sources]) or "nothing"
        raise UserError(
            folder,
            f"{counted(len(sources), 'light field')} ({names})",
            expected="one: viewpoints_<P>px/JJ_II.png, RR_CC.png, *_Decoded.mat, *eslf.png, *.LFR",
        )
    return sources[0]


def _is_decoded(path: Path) -> bool:
    return path.suffix.lower() == ".mat" or _ESLF.fullmatch(path.name) is not None


def _grid_of_files(folder: Path) -> dict[Cell, Any]:
    views: dict[Cell, Path] = {}
    for path in sorted(folder.iterdir()):
        cell = _cell(path)
        if cell is None:
            continue
        if cell in views:
            raise UserError(
                folder,
                f"two views of row {cell[0]}, column {cell[1]}: {views[cell].name}, {path.name}",
                expected="one file a view",
                fix="move the others away",
            )
        views[cell] = path
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
            f"a grid with holes: {counted(len(missing), 'view')} missing ({first_few(missing)})",
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
