"""The images below a folder, and warnings about files that might have been meant as images.

An image's name is its path below the folder, as in COLMAP models.
"""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from stages.run.artefacts import CAPTURE, GAUSSIANS
from stages.run.errors import UserError, warn_once
from stages.run.plurals import first_few
from stages.scenes.images import Color, has_alpha, is_image

SUFFIXES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".tif",
        ".tiff",
        ".bmp",
        ".webp",
        ".gif",
        ".avif",
        ".jp2",
        ".ppm",
        ".pgm",
        ".pnm",
    )
)
# Not every Pillow decodes these, so the file's header decides.
_MAYBE_READ = frozenset({".avif"})
VIDEO_SUFFIXES = frozenset(
    (
        ".3gp",
        ".avi",
        ".insp",
        ".insv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".webm",
        ".wmv",
    )
)
# Formats of images that are not read. PSD has no image but its layers.
_UNREAD = frozenset(
    (
        ".heic",
        ".heif",
        ".hif",
        ".avifs",
        ".jxl",
        ".jxr",
        ".psd",
        ".psb",
        ".exr",
        ".hdr",
        ".tga",
        ".svg",
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dng",
        ".erf",
        ".fff",
        ".gpr",
        ".iiq",
        ".kdc",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".raf",
        ".rw2",
        ".rwl",
        ".sr2",
        ".srf",
        ".srw",
        ".x3f",
    )
)
# Files and folders of operating systems, beside names with a leading dot and folders with an @.
_SYSTEM = frozenset(
    (
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "#recycle",
        "$recycle.bin",
        "lost+found",
    )
)
MARK = ".made_by_splatfix"
# A folder with all files of one of these sets is a result of this project.
_OWN_RESULTS = (
    (MARK,),
    (CAPTURE, GAUSSIANS),
    (f"train/{CAPTURE}", f"train/{GAUSSIANS}"),
    (f"checkpoints/{CAPTURE}", f"checkpoints/{GAUSSIANS}"),
    ("frame.json", "metrics.json", "views.tsv"),
    ("fixed.json", "post/views.tsv"),
    ("fixed.json", "distill/views.tsv"),
    ("scene.json", "split.csv"),
    (".prep_complete",),
)


@dataclass(frozen=True)
class Walk:
    """Files and folders below a folder; links are followed, and a folder is entered once."""

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    own: list[Path] = field(default_factory=list)  # folders with results of this project
    broken_links: list[Path] = field(default_factory=list)

    def names(self, paths: Iterable[Path]) -> list[str]:
        """Names of paths below the folder, sorted."""
        return [path.relative_to(self.root).as_posix() for path in sorted(paths)]


@dataclass(frozen=True)
class Listing:
    """The images below a folder by name, and what else it contains."""

    walk: Walk
    files: dict[str, Path]
    unread: list[str]

    def report(self) -> None:
        """Warn once about files that are skipped and might have been meant as images."""
        walk = self.walk
        for names, singular, plural, advice in (
            (self.unread, "file not read", "files not read", "; convert them to JPEG or PNG"),
            (
                walk.names(walk.hidden),
                "hidden file or folder skipped",
                "hidden files and folders skipped",
                "",
            ),
            (
                walk.names(walk.own),
                "folder of own results skipped",
                "folders of own results skipped",
                "",
            ),
            (walk.names(walk.broken_links), "broken link", "broken links", ""),
        ):
            if names:
                kind = singular if len(names) == 1 else plural
                printable = [name if _is_text(name) else repr(name)[1:-1] for name in names]
                warn_once(f"{walk.root}: {len(names)} {kind}: {first_few(printable)}{advice}")

    def find(self, name: str) -> Path | None:
        """The file that a model refers to by a name; None if there is none.

        Unicode forms of a name are equal. A file that is not listed because of its name or suffix
        is accepted.
        """
        same_form = self._by_unicode_form.get(unicodedata.normalize("NFC", name), [])
        relative = PurePosixPath(name)
        if name in self.files:
            return self.files[name]
        if len(same_form) == 1:
            return same_form[0]
        is_inside = not relative.is_absolute() and ".." not in relative.parts
        if not is_inside or not (self.walk.root / name).is_file():
            return None
        return self.walk.root / name

    @cached_property
    def _by_unicode_form(self) -> dict[str, list[Path]]:
        paths: dict[str, list[Path]] = {}
        for name, path in self.files.items():
            paths.setdefault(unicodedata.normalize("NFC", name), []).append(path)
        return paths


def list_images(root: Path, *, deep: bool = True) -> Listing:
    """The images below a folder (`deep`) or directly in it; warns about files that are skipped.

    Raises UserError for names that are not UTF-8, as COLMAP models need it, and for names with
    control characters, which no table can hold.
    """
    walk = walk_folder(root, deep=deep)
    files, unread = {}, []
    for path, name in zip(sorted(walk.files), walk.names(walk.files), strict=True):
        suffix = path.suffix.lower()
        if suffix in _UNREAD | VIDEO_SUFFIXES or (suffix in _MAYBE_READ and not is_image(path)):
            unread.append(name)
        elif suffix in SUFFIXES:
            files[name] = path
    undecodable = [os.fsencode(name) for name in files if not _is_text(name)]
    if undecodable:
        raise UserError(
            root,
            f"{len(undecodable)} of {len(files)} images have names that are not UTF-8, or "
            f"have control characters: {first_few([repr(name)[1:] for name in undecodable])}",
            expected="names in UTF-8, as in models and tables",
            fix=f"rename them, for example by `convmv -f ENCODING -t UTF-8 -r --notest {root}`",
        )
    listing = Listing(walk, files, unread)
    listing.report()
    return listing


def report_alpha(where: object, paths: Iterable[Path], background: Color) -> None:
    """Report how many images have alpha, and the background that they are composited over."""
    with_alpha = [has_alpha(path) for path in paths]
    if any(with_alpha):
        warn_once(
            f"{where}: {sum(with_alpha)} of {len(with_alpha)} images have alpha; they are "
            f"composited over train.background, {[float(level) for level in background]}"
        )


def walk_folder(root: Path, *, deep: bool = True) -> Walk:
    """Everything that is not hidden below a folder (`deep`) or directly in it.

    A folder that several links lead to is entered once, by its own name if that lies below `root`.
    Raises UserError for a folder that cannot be read.
    """
    walk = Walk(root)
    entered = {_identity(parent) for parent in root.resolve().parents}
    folders, linked_folders = [root], []
    while folders or linked_folders:
        folder = folders.pop() if folders else linked_folders.pop(0)
        identity = _identity(folder)
        if identity in entered:
            continue
        entered.add(identity)
        if folder != root and _is_own(folder):
            walk.own.append(folder)
            continue
        walk.folders.append(folder)
        for entry in _entries(folder):
            path = folder / entry.name
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(path) if is_link else entry.is_dir()
            if is_hidden(entry.name, is_folder):
                # Scratch of a run of this project, which removes it at its end.
                walk.hidden.extend([] if entry.name.endswith(".part") else [path])
            elif is_folder:
                (linked_folders if is_link else folders).extend([path] if deep else [])
            elif os.path.isfile(path) if is_link else entry.is_file():
                walk.files.append(path)
            elif is_link:
                walk.broken_links.append(path)
    return walk


def is_hidden(name: str, is_folder: bool) -> bool:
    """Whether a file or folder belongs to the system: hidden, thumbnails, a bin.

    >>> [is_hidden(name, True) for name in (".thumbnails", "@eaDir", "__MACOSX", "LEFT")]
    [True, True, True, False]
    >>> [is_hidden(name, False) for name in ("._a.jpg", "Thumbs.db", "@home.jpg")]
    [True, True, False]
    """
    return name[0] == "." or name.lower() in _SYSTEM or (is_folder and name[0] == "@")


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
    return any(all((folder / name).is_file() for name in mark) for mark in _OWN_RESULTS)


def _is_text(name: str) -> bool:
    """Whether a name can be written: without line breaks, or stand-ins for undecodable bytes."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
