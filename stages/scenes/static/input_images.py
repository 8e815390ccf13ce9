"""The images of a static scene as the user took them, and their names in the combined set.

`<scene>/static/` holds monocular/, iphone/ (wide, tele, ultrawide), stereo/ (left, right),
lightfield/ and iphone_eval/, in the spellings of `input_folders`; single images may lie beside each
other instead, as wide.png, tele.png, ultrawide.png, stereo_left.png and stereo_right.png. An image
of a subset is named `<prefix>__<path>` in the combined set, with `__` for `/`: `stereo__left.png`,
`lf__03_04.png`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stages.run.errors import UserError, raise_all
from stages.run.files import file_hash
from stages.run.plurals import first_few
from stages.scenes.image_folder import list_images, report_alpha
from stages.scenes.images import BLACK, Color, Pixels, focal_35mm, image_size, read_image
from stages.scenes.poses.colmap_rigs import Slot
from stages.scenes.static.input_folders import (
    EVAL,
    candidates,
    images_folder,
    relative_source,
)
from stages.scenes.static.light_field.lightfield import Cell, LightField

PREFIXES = {
    "monocular": "mono",
    "iphone": "iphone",
    "stereo": "stereo",
    "lightfield": "lf",
    "iphone_eval": "eval",
}
_LENSES = {"iphone": ("wide", "tele", "ultrawide"), "stereo": ("left", "right")}
_FLAT = {
    "monocular": ("wide",),
    "iphone": ("wide", "tele", "ultrawide"),
    "stereo": ("stereo_left", "stereo_right"),
}
_DIAGONAL_35MM = 43.267


@dataclass(frozen=True, eq=False)
class InputImage:
    """One image: its name in the combined set, its rig and lens, and how to read it."""

    name: str
    subset: str
    slot: Slot
    read: Callable[[], Pixels]
    size: tuple[int, int]  # px
    focal_px: float | None  # from its EXIF data
    sha256: str  # of its file; of a decoded view its name
    source: str  # file below `static/`, or below the scene
    cell: Cell | None = None  # of a light-field view
    path: Path | None = None  # its file; None for a view that is part of one


def list_input_images(
    folder: Path, kinds: Sequence[str], background: Color = BLACK
) -> list[InputImage]:
    """Images of these kinds of camera except light fields, alpha over `background`.

    Raises UserError with all that is missing.
    """
    images: list[InputImage] = []
    errors: list[UserError] = []
    for kind in (kind for kind in kinds if kind != "lightfield"):
        base, files = _files(folder, kind)
        errors += _faults(folder, kind, base, files)
        images += [_image(folder, kind, base, path, background) for path in files]
        report_alpha(base, files, background)
    raise_all(errors)
    names = [image.name for image in images]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(
            folder,
            f"two images would both be named {repeated[0]}",
            expected="names that differ in more than their suffix",
        )
    return images


def lightfield_images(field: LightField) -> Iterator[InputImage]:
    """The views of a light field: one lens each on one rig, the middle one its reference."""
    centre = field.centre
    order = sorted(field.views, key=lambda cell: (cell != centre, cell))
    for row, column in order:
        view = field.views[row, column]
        size = field.size((row, column))
        name = f"lf__{row:02d}_{column:02d}.png"
        middle = (row, column) == centre
        slot = Slot(name, "lightfield", "", mounted=not middle, held_focal=not middle)
        sha256 = file_hash(view) if isinstance(view, Path) else name
        read = partial(field.read, (row, column))
        source = view.name if isinstance(view, Path) else f"view {row:02d}_{column:02d}"
        file = view if isinstance(view, Path) else None
        yield InputImage(
            name, "lightfield", slot, read, size, None, sha256, source, (row, column), file
        )


def _files(folder: Path, kind: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and its images of one kind."""
    base = images_folder(folder, kind)
    if base is not None:
        return base, list(list_images(base).files.values())
    flat = _FLAT.get(kind, ())
    beside = list_images(folder, deep=False).files.values()
    return folder, [path for path in beside if path.stem.lower() in flat]


def _faults(folder: Path, kind: str, base: Path, files: Sequence[Path]) -> Iterator[UserError]:
    if not files:
        flat = " or ".join(f"{stem}.png" for stem in _FLAT.get(kind, ()))
        beside = f", or {flat} in {folder}" if flat else ""
        places = ", ".join(f"{place}/" for place in candidates(folder, kind))
        leave_out = "" if kind == EVAL else f", or take {kind} out of static.cameras"
        yield UserError(
            folder,
            f"no image for {kind}",
            expected=f"images in {places} or images/ in it{beside}",
            fix=f"add them{leave_out}",
        )
        return
    if kind != "stereo":
        return
    halves = {
        lens: {_frame(kind, base, p) for p in files if _lens(kind, base, p) == lens}
        for lens in _LENSES[kind]
    }
    for lens, other in (("left", "right"), ("right", "left")):
        missing = sorted(halves[other] - halves[lens])
        if missing or not halves[lens]:
            which = f" of {first_few(missing)}" if any(missing) else ""
            yield UserError(
                base,
                f"no {lens} half{which}",
                expected="images of the same names for both sides",
                fix="add it, or take stereo out of static.cameras",
            )


def _image(static: Path, kind: str, base: Path, path: Path, background: Color) -> InputImage:
    relative = path.relative_to(base).with_suffix("").as_posix().replace("/", "__")
    size, focal = image_size(path), _exif_focal_px(path)
    lens = _lens(kind, base, path) or f"{size[0]}x{size[1]} {focal}"
    frame = _frame(kind, base, path)
    rig = "stereo" if kind == "stereo" else f"{kind}/{lens}"
    slot = Slot(f"{kind}/{lens}", rig, frame, known_focal=focal is not None)
    read = partial(read_image, path, background=background)
    return InputImage(
        f"{PREFIXES[kind]}__{relative}.png",
        kind,
        slot,
        read,
        size,
        focal,
        file_hash(path),
        relative_source(static, path),
        path=path,
    )


def _lens(kind: str, base: Path, path: Path) -> str:
    """The lens that a file or its folder names; empty for kinds with one lens."""
    words = {path.stem.lower(), *path.relative_to(base).parts[:-1]}
    plain = {word.removeprefix("stereo_") for word in words}
    return next((lens for lens in _LENSES.get(kind, ()) if lens in plain), "")


def _frame(kind: str, base: Path, path: Path) -> str:
    """The timestamp that images of one rig share: their path without the lens."""
    parts = [*path.relative_to(base).parts[:-1], path.stem]
    lenses = _LENSES.get(kind, ())
    return "/".join(part for part in parts if part.lower().removeprefix("stereo_") not in lenses)


def _exif_focal_px(path: Path) -> float | None:
    """Focal length by the 35 mm equivalent that phones write, in px of the stored image."""
    width, height = image_size(path, upright=False)
    mm = focal_35mm(path)
    return mm / _DIAGONAL_35MM * float(width**2 + height**2) ** 0.5 if mm else None
