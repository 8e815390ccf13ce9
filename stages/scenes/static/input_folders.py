"""Where the images of a static scene lie, in the spellings that are accepted.

A kind's folder may hold them in `images/`, as a COLMAP dataset does; its poses are not used. The
eval frames' folder is spelled iphone_eval or iphone-eval and lies in `static/` or beside it. A
light field lies in `lightfield/`, in `lightfield_decoded/inner_NN/` without its NN outer rings, or
as a file beside the images.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from stages.run.errors import UserError
from stages.run.plurals import first_few
from stages.scenes.image_folder import list_images, walk_folder
from stages.scenes.static.light_field.lightfield import has_views, is_lightfield, is_raw

_LOGGER = logging.getLogger(__name__)

EVAL = "iphone_eval"
EVAL_NAMES = (EVAL, "iphone-eval")
_DECODED_NAMES = ("lightfield_decoded", "lightfield-decoded")
_INNER = re.compile(r"inner[_-]?(\d{1,2})", re.IGNORECASE)


@dataclass(frozen=True)
class LightFieldSource:
    """A light field on disk, and the number of its outer rings that are still to be left out."""

    path: Path
    inner: int


def candidates(static: Path, kind: str) -> list[Path]:
    """Folders that may hold the images of a kind of camera."""
    if kind != EVAL:
        return [static / kind]
    return [parent / name for parent in (static, static.parent) for name in EVAL_NAMES]


def images_folder(static: Path, kind: str) -> Path | None:
    """The folder that names of a kind's images are relative to; None if there is none.

    Raises UserError when several folders hold images of the kind.
    """
    existing = [folder for folder in candidates(static, kind) if folder.is_dir()]
    distinct = list({folder.resolve(): folder for folder in reversed(existing)}.values())[::-1]
    filled = [folder for folder in distinct if len(distinct) == 1 or list_images(folder).files]
    if len(filled) > 1:
        raise UserError(
            static.parent,
            f"images of {kind} in {len(filled)} folders: {', '.join(map(str, filled))}",
            expected="one of them",
            fix="move the other away",
        )
    folder = (filled or distinct or [None])[0]
    if folder is None or not (folder / "images").is_dir():
        return folder
    if (folder / "sparse").is_dir():
        _LOGGER.info("%s: a COLMAP dataset, of which only images/ is used", folder)
    return folder / "images"


def input_folders(static: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Existing folders that hold images of these kinds."""
    folders = [folder for kind in kinds for folder in candidates(static, kind)]
    return [folder for folder in (*folders, *_decoded_roots(static)) if folder.is_dir()]


def relative_source(static: Path, path: Path) -> str:
    """An input file's path below `static/`, or below the scene.

    >>> relative_source(Path("dog/static"), Path("dog/iphone-eval/images/1.png"))
    'iphone-eval/images/1.png'
    """
    root = static if path.is_relative_to(static) else static.parent
    return path.relative_to(root).as_posix()


def find_lightfield(static: Path, inner: int, decoder: str = "") -> LightFieldSource:
    """The light field of a scene without its `inner` outer rings.

    Decoded views take precedence over a raw file. Raw files are decoded by `decoder` where views
    without other numbers of rings are all that is decoded. Raises UserError for none and several.
    """
    folder = static / "lightfield"
    beside = sorted(path for path in walk_folder(static, deep=False).files if is_lightfield(path))
    decoded = [LightFieldSource(path, inner) for path in beside if not is_raw(path)]
    raw = [LightFieldSource(path, inner) for path in beside if is_raw(path)]
    if folder.is_dir():
        source = LightFieldSource(folder, inner)
        if has_views(folder):
            # As before there was lightfield_decoded/, files beside the folder are not looked at.
            decoded, raw = [source], []
        else:
            decoded, raw = [], [source]
    by_rings = _inner_folders(static)
    if inner in by_rings:
        # The rings are left out of it whether its views are numbered anew or not.
        decoded.append(LightFieldSource(by_rings[inner], 0))
    elif by_rings and not decoded and not (raw and decoder):
        raise _other_rings(static, by_rings, inner, bool(raw))
    sources = decoded or raw
    if len(sources) == 1:
        return sources[0]
    names = first_few([str(source.path) for source in sources])
    raise UserError(
        static,
        f"{len(sources)} light fields" + (f": {names}" if names else ""),
        expected=f"views in {folder}, or in {static / _DECODED_NAMES[0] / f'inner_{inner:02d}'}, "
        f"or one *.LFR, *_Decoded.mat or *eslf.png in {static}",
        fix="move the others away" if names else "add it, or take lightfield out of static.cameras",
    )


def _decoded_roots(static: Path) -> list[Path]:
    return [static / name for name in _DECODED_NAMES if (static / name).is_dir()]


def _inner_folders(static: Path) -> dict[int, Path]:
    """Folders with decoded views by the number of rings that were left out."""
    folders: dict[int, Path] = {}
    for root in _decoded_roots(static):
        for path in sorted(walk_folder(root).folders):
            match = _INNER.fullmatch(path.name)
            if match is None or not has_views(path):
                continue
            other = folders.setdefault(int(match[1]), path)
            if other != path:
                raise UserError(
                    root,
                    f"two folders without {int(match[1])} outer rings: {other}, {path}",
                    expected="one",
                    fix="move the other away",
                )
    return folders


def _other_rings(static: Path, by_rings: dict[int, Path], inner: int, has_raw: bool) -> UserError:
    root = next(iter(by_rings.values())).parent
    there = ", ".join(path.name for _, path in sorted(by_rings.items()))
    decode = ", or name a decoder in static.lf_to_colmap (LF_TO_COLMAP)" if has_raw else ""
    return UserError(
        root / f"inner_{inner:02d}",
        f"no such folder with views; {root.name}/ has {there}",
        expected=f"views without {inner} outer rings (static.lf_inner)",
        fix=f"set static.lf_inner={min(by_rings)} (LF_INNER){decode}",
    )
