"""A COLMAP dataset as views of pinhole cameras: `images/`, and `sparse/0` or `sparse`.

Beside them there may be `masks/`, as COLMAP has them: `masks/a.jpg.png` for `images/a.jpg`, or a
file of the same name or stem. What is not black counts.
Images belong to the model by their name below `images/`, never by their order. Sizes and camera
models may be mixed. As COLMAP does, pixels are taken as they are stored; the EXIF orientation is
applied only where the camera has the size of the turned photograph.
"""

import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError, raise_all
from stages.run.files import file_hash
from stages.scenes.cameras import Array
from stages.scenes.colmap_lenses import (
    Lens,
    PosedImage,
    find_model,
    other_models_note,
    read_posed,
)
from stages.scenes.image_folder import SUFFIXES, Listing, list_images, shortened
from stages.scenes.images import image_size
from stages.scenes.view import View


@dataclass(frozen=True, eq=False)
class Dataset:
    """A COLMAP dataset on disk."""

    folder: Path
    model: Path
    views: tuple[View, ...]  # by name
    points: Array  # [P, 3]
    colors: NDArray[np.uint8]  # [P, 3]
    without_pose: tuple[str, ...]  # images that the model does not place

    @property
    def name(self) -> str:
        """The folder's own name, also of `.`."""
        return self.folder.resolve().name

    @cached_property
    def photographs(self) -> frozenset[str]:
        """SHA-256 of every photograph's file, with a pose or without: which dataset this is.

        Whatever it is called and wherever it lies. Reads every file once, some GB a second.
        """
        found = image_paths(self.folder)
        unposed = {file_hash(found[name]) for name in self.without_pose}
        return frozenset({view.sha256 for view in self.views} | unposed)

    @classmethod
    def read(cls, folder: Path) -> "Dataset":
        """Open a dataset and hold every image's size against its camera.

        Raises UserError when there is no model or no image, when the model names images that are
        not there, and when sizes contradict.
        """
        root, at = _image_root(folder), find_model(folder)
        if at is None:
            raise UserError(
                folder, "no folder sparse, so no poses", expected="images/ and sparse/0 or sparse",
                fix=f"python -m stages.capture_calibrate {folder} DATASET_DIR estimates them",
            )  # fmt: skip
        model = read_posed(at)
        listing = _list_images(root)
        found = {name: path for name in model.images if (path := listing.named(name))}
        raise_all(_absent(model.images, found, listing.files, at))
        views, errors = [], []
        for name, posed in model.images.items():
            try:
                views.append(_view(posed, found[name], _mask_of(folder, name)))
            except UserError as error:
                errors.append(error)
        raise_all(errors)
        taken = set(found.values())
        without = tuple(sorted(n for n, path in listing.files.items() if path not in taken))
        return cls(folder, at, tuple(views), model.points, model.colors, without)

    def tell(self) -> None:
        """Say which model is taken, how photographs are undistorted, and which are left out."""
        parts = other_models_note(self.model)
        if parts:
            print(f"{self.name}: {parts}", file=sys.stderr, flush=True)
        self._tell_lenses()
        if self.without_pose:
            total = len(self.views) + len(self.without_pose)
            print(
                f"{self.name}: {len(self.without_pose)} of {total} images have no pose in the "
                f"model and are left out: {shortened(self.without_pose)}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def _tell_lenses(self) -> None:
        """A line for all lenses of one model and size that show as much of a photograph."""
        lenses = {(view.lens, view.camera.width, view.camera.height) for view in self.views}
        told = sorted(
            f"{self.name}: {lens.model} undistorted: {lens.share():.0%} of the photograph's area "
            f"is used, {width}x{height} px" + (", other pixels are masked" if lens.masked else "")
            for lens, width, height in lenses
            if lens.bent
        )
        for line in dict.fromkeys(told):
            print(line, flush=True)


def image_paths(folder: Path) -> dict[str, Path]:
    """Images below `images/` by their name in a COLMAP model. Raises UserError for none."""
    return _list_images(_image_root(folder)).files


def find_photographs(source: Path) -> dict[str, Path]:
    """Photographs by name: those below `images/` if there is such a folder, else below `source`."""
    if (source / "images").is_dir():
        return image_paths(source)
    if not source.is_dir():
        raise UserError(source, "no such folder", expected="photographs, or images/ with them")
    return _list_images(source, "photograph").files


def same_images(source: Path, dataset: Path) -> bool:
    """Whether a dataset was made of the very photographs that `source` holds."""
    if not (dataset / "sparse").is_dir():
        return False
    ours, theirs = find_photographs(source), image_paths(dataset)
    return ours.keys() == theirs.keys() and all(
        file_hash(ours[name]) == file_hash(theirs[name]) for name in ours
    )


def _image_root(folder: Path) -> Path:
    root = folder / "images"
    if not root.is_dir():
        told = "no such folder" if not folder.is_dir() else "no folder images in it"
        raise UserError(folder, told, expected="a dataset: images/ and sparse/0 or sparse")
    return root


def _list_images(root: Path, what: str = "image") -> Listing:
    listing = list_images(root)
    if not listing.files:
        raise UserError(root, f"no {what} in it", expected=f"files {', '.join(sorted(SUFFIXES))}")
    return listing


def _absent(
    wanted: Iterable[str], found: dict[str, Path], there: dict[str, Path], model: Path
) -> list[UserError]:
    """The complaint about images that a model names and that are not there."""
    wanted = list(wanted)
    absent = [name for name in wanted if name not in found]
    if not absent:
        return []
    return [
        UserError(
            model, f"{len(absent)} of {len(wanted)} images that it names are not below images/: "
            f"{shortened(absent)}",
            expected=f"names as in {shortened(sorted(there))}",
            hint=_likely(absent[0], there),
            fix="bring the images, or remove them from the model",
        )
    ]  # fmt: skip


def _likely(name: str, found: dict[str, Path]) -> str:
    """What a missing name may have become: another suffix or folder, or a slip."""
    stem = PurePosixPath(name).stem
    same = [other for other in found if PurePosixPath(other).stem == stem]
    close = same or difflib.get_close_matches(name, found, n=1)
    return f"is {close[0]} meant by {name}?" if close else ""


def _mask_of(folder: Path, name: str) -> Path | None:
    """The mask of an image, or None."""
    root = folder / "masks"
    names = (f"{name}.png", name, PurePosixPath(name).with_suffix(".png"))
    return next((root / one for one in names if (root / one).is_file()), None)


def _view(posed: PosedImage, path: Path, mask: Path | None) -> View:
    lens, upright = _fitting_lens(posed.lens, path)
    return View(posed.camera(lens), path, mask, lens=lens, upright=upright)


def _fitting_lens(lens: Lens, path: Path) -> tuple[Lens, bool]:
    """The lens of an image as it is stored, and whether its EXIF orientation is applied."""
    wanted = lens.width, lens.height
    stored = image_size(path, upright=False)
    if stored == wanted:
        return lens, False
    rotated = image_size(path)
    if rotated == wanted:
        return lens, True
    # A capture that was shrunk as a whole, such as images_2 of a dataset, keeps its shape.
    for size, upright in ((stored, False), (rotated, True)):
        if abs(size[0] * wanted[1] - size[1] * wanted[0]) <= max(wanted):
            return lens.resized(*size), upright
    raise UserError(
        path, f"{stored[0]}x{stored[1]} px", expected=f"{wanted[0]}x{wanted[1]} px or the same "
        "shape in another size, as its camera in the model says",
        fix="bring the images that the model was made of",
    )  # fmt: skip
