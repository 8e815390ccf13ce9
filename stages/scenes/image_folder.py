"""The photographs of a folder: which of its files are some, and what is said of the others.

One listing for every reader. A photograph's name is its path below the folder, as COLMAP has it.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from stages.run.errors import UserError, warn_once
from stages.scenes.images import Color, has_alpha, is_image

SUFFIXES = frozenset((
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".webp", ".gif",
    ".avif", ".jp2", ".ppm", ".pgm", ".pnm",
))  # fmt: skip
# Decoders of these are no part of every Pillow, so a look into the file decides.
_TRIED = frozenset({".avif"})
# Photographs and videos that nobody here reads. PSD has no picture but that of its layers.
_UNREAD = frozenset((
    ".heic", ".heif", ".hif", ".avifs", ".jxl", ".jxr", ".psd", ".psb", ".exr", ".hdr", ".tga",
    ".svg", ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".fff", ".gpr", ".iiq",
    ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2",
    ".rwl", ".sr2", ".srf", ".srw", ".x3f", ".3gp", ".avi", ".insp", ".insv", ".m2ts", ".m4v",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv",
))  # fmt: skip
# What systems leave in folders; beside it all that starts with a dot, and folders with an @.
_SYSTEM = frozenset((
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "#recycle", "$recycle.bin",
    "lost+found",
))  # fmt: skip
MARK = ".made_by_splatfix"
# What tells a folder of this project's from the user's: all files of one of these.
_OWN = (
    (MARK,),
    ("capture.json", "gaussians.safetensors"),
    ("train/capture.json", "train/gaussians.safetensors"),
    ("checkpoints/capture.json", "checkpoints/gaussians.safetensors"),
    ("frame.json", "metrics.json", "views.tsv"),
    ("scene.json", "split.csv"),
    (".prep_complete",),
)
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Walk:
    """What lies below a folder: links are followed, and a folder is entered once."""

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    own: list[Path] = field(default_factory=list)  # folders with this project's own results
    lost: list[Path] = field(default_factory=list)  # links to nothing

    def names(self, paths: Iterable[Path]) -> list[str]:
        """Paths below the folder, in order."""
        return [path.relative_to(self.root).as_posix() for path in sorted(paths)]


@dataclass(frozen=True)
class Listing:
    """The photographs below a folder by name, and what else is there."""

    walk: Walk
    files: dict[str, Path]
    unread: list[str]

    def tell(self) -> None:
        """Say, once, what is not taken for a photograph and might have been meant as one."""
        walk = self.walk
        for names, one, many, then in (
            (self.unread, "file not read", "files not read", "; convert them to JPEG or PNG"),
            (walk.names(walk.hidden), "hidden file or folder passed over",
             "hidden files and folders passed over", ""),
            (walk.names(walk.own), "folder of own results passed over",
             "folders of own results passed over", ""),
            (walk.names(walk.lost), "link leads nowhere", "links lead nowhere", ""),
        ):  # fmt: skip
            if names:
                what = one if len(names) == 1 else many
                told = [name if _is_text(name) else repr(name)[1:-1] for name in names]
                warn_once(f"{walk.root}: {len(names)} {what}: {shortened(told)}{then}")

    def named(self, name: str) -> Path | None:
        """The file that a model means by a name; None when it is not there.

        Any Unicode form of the name will do. A file that only its name hides, or its suffix, is
        taken at the model's word.
        """
        alike = self._by_form.get(unicodedata.normalize("NFC", name), [])
        inside = PurePosixPath(name)
        if name in self.files:
            return self.files[name]
        if len(alike) == 1:
            return alike[0]
        if inside.is_absolute() or ".." in inside.parts or not (self.walk.root / name).is_file():
            return None
        return self.walk.root / name

    @cached_property
    def _by_form(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for name, path in self.files.items():
            found.setdefault(unicodedata.normalize("NFC", name), []).append(path)
        return found


def list_images(root: Path, *, deep: bool = True) -> Listing:
    """The photographs below a folder, or right in it; what is left out is told.

    Raises UserError for a name that is not UTF-8, which no COLMAP model can hold, and for one with
    a line break or the like, which no table can.
    """
    walk = walk_folder(root, deep=deep)
    files, unread = {}, []
    for path, name in zip(sorted(walk.files), walk.names(walk.files), strict=True):
        suffix = path.suffix.lower()
        if suffix in _UNREAD or (suffix in _TRIED and not is_image(path)):
            unread.append(name)
        elif suffix in SUFFIXES:
            files[name] = path
    foreign = [os.fsencode(name) for name in files if not _is_text(name)]
    if foreign:
        raise UserError(
            root, f"{len(foreign)} of {len(files)} photographs have names that are not UTF-8, or "
            f"have control characters: {shortened([repr(name)[1:] for name in foreign])}",
            expected="names in UTF-8, as models and tables have them",
            fix=f"rename them, such as by `convmv -f ENCODING -t UTF-8 -r --notest {root}`",
        )  # fmt: skip
    listing = Listing(walk, files, unread)
    listing.tell()
    return listing


def report_alpha(where: object, paths: Iterable[Path], background: Color) -> None:
    """Say how many photographs have alpha, and what they are laid over."""
    found = [has_alpha(path) for path in paths]
    if any(found):
        warn_once(
            f"{where}: {sum(found)} of {len(found)} photographs have alpha; they are laid over "
            f"train.background, {[float(level) for level in background]}"
        )


def walk_folder(root: Path, *, deep: bool = True) -> Walk:
    """Everything that is not hidden below a folder, or right in it.

    A folder that links lead to twice, or back to, counts once, by its own name if it has one here.
    Raises UserError for a folder that cannot be read.
    """
    walk = Walk(root)
    seen = {_identity(parent) for parent in root.resolve().parents}
    waiting, linked = [root], []
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop(0)
        identity = _identity(folder)
        if identity in seen:
            continue
        seen.add(identity)
        if folder != root and _is_own(folder):
            walk.own.append(folder)
            continue
        walk.folders.append(folder)
        for entry in _entries(folder):
            path = folder / entry.name
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(path) if is_link else entry.is_dir()
            if is_hidden(entry.name, is_folder):
                # Ours, and gone when the run that writes there has ended.
                walk.hidden.extend([] if entry.name.endswith(".part") else [path])
            elif is_folder:
                (linked if is_link else waiting).extend([path] if deep else [])
            elif os.path.isfile(path) if is_link else entry.is_file():
                walk.files.append(path)
            elif is_link:
                walk.lost.append(path)
    return walk


def is_hidden(name: str, is_folder: bool) -> bool:
    """Whether a file or folder is a system's own: hidden, thumbnails, a bin.

    >>> [is_hidden(name, True) for name in (".thumbnails", "@eaDir", "__MACOSX", "LEFT")]
    [True, True, True, False]
    >>> [is_hidden(name, False) for name in ("._a.jpg", "Thumbs.db", "@home.jpg")]
    [True, True, False]
    """
    return name[0] == "." or name.lower() in _SYSTEM or (is_folder and name[0] == "@")


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are.

    >>> shortened(["a", "b"]), shortened(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            folder, f"cannot be listed ({error.strerror})", expected="a folder that can be read"
        ) from error


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_own(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in mark) for mark in _OWN)


def _is_text(name: str) -> bool:
    """Whether a name can be written: without line breaks, or stand-ins for foreign bytes."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
