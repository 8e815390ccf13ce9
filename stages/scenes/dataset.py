"""A COLMAP dataset as views of pinhole cameras: `images/`, and `sparse/0` or `sparse`.

Beside them there may be `masks/`, as COLMAP has them: `masks/a.jpg.png` for `images/a.jpg`, or a
file of the same name or stem. What is not black counts.
Images are matched to the model by their name below `images/`, never by their order. Sizes and
camera models may be mixed. Pixels are read as they are stored, as COLMAP does; the EXIF orientation
is applied only where the camera has the size of the rotated image.
"""

import difflib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError, raise_all
from stages.run.files import file_hash
from stages.run.plurals import first_few
from stages.scenes.cameras import Array
from stages.scenes.colmap_lenses import (
    Lens,
    PosedImage,
    find_model,
    other_models_note,
    read_posed,
)
from stages.scenes.image_folder import SUFFIXES, Listing, list_images
from stages.scenes.images import image_size
from stages.scenes.view import View

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A COLMAP dataset on disk."""

    folder: Path
    model: Path
    views: tuple[View, ...]  # by name
    points: Array  # [P, 3]
    colors: NDArray[np.uint8]  # [P, 3]
    without_pose: tuple[str, ...]  # names of images without a pose in the model

    @property
    def name(self) -> str:
        """The folder's own name, also of `.`."""
        return self.folder.resolve().name

    @cached_property
    def image_hashes(self) -> frozenset[str]:
        """SHA-256 of every image's file, with a pose or without; they identify the dataset.

        Reads every file once, at some GB/s.
        """
        paths = image_paths(self.folder)
        unposed = {file_hash(paths[name]) for name in self.without_pose}
        return frozenset({view.sha256 for view in self.views} | unposed)

    @classmethod
    def read(cls, folder: Path) -> "Dataset":
        """Open a dataset and check every image's size against its camera.

        Raises UserError when there is no model or no image, when images of the model are missing,
        and when sizes contradict.
        """
        root, model_folder = _image_root(folder), find_model(folder)
        if model_folder is None:
            raise UserError(
                folder,
                "no folder sparse, so no poses",
                expected="images/ and sparse/0 or sparse",
                fix=f"python -m stages.capture_calibrate {folder} DATASET_DIR estimates them",
            )
        model = read_posed(model_folder)
        listing = _list_images(root)
        paths = {name: path for name in model.images if (path := listing.find(name))}
        raise_all(_missing_images(model.images, paths, listing.files, model_folder))
        views, errors = [], []
        for name, posed in model.images.items():
            try:
                views.append(_view(posed, paths[name], _mask_path(folder, name)))
            except UserError as error:
                errors.append(error)
        raise_all(errors)
        posed_paths = set(paths.values())
        without = tuple(sorted(n for n, path in listing.files.items() if path not in posed_paths))
        return cls(folder, model_folder, tuple(views), model.points, model.colors, without)

    def log_notes(self) -> None:
        """Log which model is read, how images are undistorted and which have no pose."""
        parts = other_models_note(self.model)
        if parts:
            _LOGGER.warning("%s: %s", self.name, parts)
        self._log_lenses()
        if self.without_pose:
            total = len(self.views) + len(self.without_pose)
            _LOGGER.warning(
                "%s: %d of %d images have no pose in the model and are left out: %s",
                self.name,
                len(self.without_pose),
                total,
                first_few(self.without_pose),
            )

    def _log_lenses(self) -> None:
        """Log one line per lens model, size and share of the image that stays."""
        lenses = {(view.lens, view.camera.width, view.camera.height) for view in self.views}
        lines = sorted(
            f"{self.name}: {lens.model} undistorted: {lens.share():.0%} of the image's area "
            f"is used, {width}x{height} px" + (", other pixels are masked" if lens.masked else "")
            for lens, width, height in lenses
            if lens.distorted
        )
        for line in dict.fromkeys(lines):
            _LOGGER.info("%s", line)


def image_paths(folder: Path) -> dict[str, Path]:
    """Images below `images/` by their name in a COLMAP model. Raises UserError for none."""
    return _list_images(_image_root(folder)).files


def find_photographs(source: Path) -> dict[str, Path]:
    """Images by name: those below `images/` if there is such a folder, else below `source`."""
    if (source / "images").is_dir():
        return image_paths(source)
    if not source.is_dir():
        raise UserError(source, "no such folder", expected="images, or images/ with them")
    return _list_images(source).files


def same_images(source: Path, dataset: Path) -> bool:
    """Whether a dataset has exactly the images of `source`, by name and content."""
    if not (dataset / "sparse").is_dir():
        return False
    ours, theirs = find_photographs(source), image_paths(dataset)
    return ours.keys() == theirs.keys() and all(
        file_hash(ours[name]) == file_hash(theirs[name]) for name in ours
    )


def _image_root(folder: Path) -> Path:
    root = folder / "images"
    if not root.is_dir():
        got = "no such folder" if not folder.is_dir() else "no folder images in it"
        raise UserError(folder, got, expected="a dataset: images/ and sparse/0 or sparse")
    return root


def _list_images(root: Path) -> Listing:
    listing = list_images(root)
    if not listing.files:
        raise UserError(root, "no image in it", expected=f"files {', '.join(sorted(SUFFIXES))}")
    return listing


def _missing_images(
    names: Iterable[str], paths: dict[str, Path], files: dict[str, Path], model: Path
) -> list[UserError]:
    """The error for images of a model that are missing among `files`, if any is."""
    names = list(names)
    missing = [name for name in names if name not in paths]
    if not missing:
        return []
    return [
        UserError(
            model,
            f"{len(missing)} of {len(names)} images that it names are not below images/: "
            f"{first_few(missing)}",
            expected=f"names as in {first_few(sorted(files))}",
            hint=_likely(missing[0], files),
            fix="add the images, or remove them from the model",
        )
    ]


def _likely(name: str, files: dict[str, Path]) -> str:
    """A hint at a file with another suffix, folder or spelling than a missing name."""
    stem = PurePosixPath(name).stem
    same_stem = [other for other in files if PurePosixPath(other).stem == stem]
    close = same_stem or difflib.get_close_matches(name, files, n=1)
    return f"is {close[0]} meant by {name}?" if close else ""


def _mask_path(folder: Path, name: str) -> Path | None:
    """The mask of an image, or None."""
    root = folder / "masks"
    names = (f"{name}.png", name, PurePosixPath(name).with_suffix(".png"))
    return next((root / file for file in names if (root / file).is_file()), None)


def _view(posed: PosedImage, path: Path, mask: Path | None) -> View:
    lens, upright = _fitting_lens(posed.lens, path)
    return View(posed.camera(lens), path, mask, lens=lens, upright=upright)


def _fitting_lens(lens: Lens, path: Path) -> tuple[Lens, bool]:
    """The lens of the stored image, and whether its EXIF orientation is applied."""
    size = lens.width, lens.height
    stored = image_size(path, upright=False)
    if stored == size:
        return lens, False
    rotated = image_size(path)
    if rotated == size:
        return lens, True
    # Images that were all shrunk, such as images_2 of a dataset, keep their shape.
    for file_size, upright in ((stored, False), (rotated, True)):
        if abs(file_size[0] * size[1] - file_size[1] * size[0]) <= max(size):
            return lens.resized(*file_size), upright
    raise UserError(
        path,
        f"{stored[0]}x{stored[1]} px",
        expected=f"{size[0]}x{size[1]} px or the same "
        "shape in another size, as its camera in the model says",
        fix="use the images that the model was made from",
    )
