"""One view: an image with its camera and its masks, of a prepared scene or of a COLMAP dataset.

A scene stores images without distortion; those of a dataset are undistorted when they are read. The
pixels that the lens did not cover are not valid: they have no colour and never count.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.scenes.cameras import Camera
from stages.scenes.images import BLACK, Color, Mask, Pixels, read_image, read_mask, resize_mask

if TYPE_CHECKING:  # it brings pycolmap, which scenes do without
    from stages.scenes.colmap_lenses import Lens

Role = Literal["source", "target"]


@dataclass(frozen=True, eq=False)
class View:
    """One image with its camera."""

    camera: Camera  # pinhole, of the undistorted image; in a scene its true calibration
    image_path: Path
    mask_path: Path | None = None
    timestamp: str = ""  # six digits; a dataset has none
    role: Role | None = None  # in a scene
    valid_path: Path | None = None  # mask of the valid pixels; where there is no file, all are
    lens: "Lens | None" = None  # of the stored image, where that is distorted or may be
    upright: bool = True  # whether the stored image is rotated by its EXIF orientation

    @property
    def name(self) -> str:
        """The camera's name: in a dataset that of the image below `images/`."""
        return self.camera.name

    def image(self, background: Color = BLACK) -> tuple[Pixels, Mask | None]:
        """The undistorted image [H, W, 3] and its valid pixels [H, W], None when all are.

        Alpha is composited over `background`. Raises UserError when the file is truncated, and in a
        scene when it has not the camera's size.
        """
        image = read_image(self.image_path, upright=self.upright, background=background)
        if self.lens is not None:
            return self.lens.undistort(image)
        self._check_size(self.image_path, image.shape)
        return image, self.valid()

    def pixels(self) -> Pixels:
        """The undistorted image [H, W, 3] alone."""
        return self.image()[0]

    def valid(self) -> Mask | None:
        """The valid pixels [H, W], or None when all are."""
        if self.lens is not None:
            return self.image()[1]
        is_stored = self.valid_path is not None and self.valid_path.is_file()
        return read_mask(self.valid_path) if is_stored else None

    def valid_pixels(self) -> Pixels:
        """The image, or as [1, N, 3] its valid pixels where not all are."""
        image, valid = self.image()
        return image if valid is None else image[valid][None]

    def mask(self) -> Mask | None:
        """The pixels [H, W] of the undistorted image that its mask keeps, or None without a mask.

        In a scene these are its people, perhaps none. Raises UserError when the mask's shape is not
        the image's, and in a dataset when it keeps nothing.
        """
        if self.mask_path is None:
            return None
        mask = read_mask(self.mask_path, upright=self.upright)
        if self.lens is not None:
            return _undistorted_mask(self.mask_path, mask, self.lens)
        self._check_size(self.mask_path, mask.shape)
        return mask

    @cached_property
    def sha256(self) -> str:
        """Hash of the image's file, read once."""
        return file_hash(self.image_path)

    def _check_size(self, path: Path, shape: tuple[int, ...]) -> None:
        if shape[:2] != (self.camera.height, self.camera.width):
            raise UserError(
                path,
                f"{shape[1]}x{shape[0]} px",
                expected=f"{self.camera.width}x{self.camera.height} px, as scene.json says",
                fix="run `dvc checkout`, or `dvc repro prepare`",
            )


def _undistorted_mask(path: Path, mask: Mask, lens: "Lens") -> Mask:
    width, height = lens.width, lens.height
    if abs(mask.shape[1] * height - mask.shape[0] * width) > max(width, height):
        raise UserError(
            path,
            f"{mask.shape[1]}x{mask.shape[0]} px",
            expected=f"the {width}x{height} px of its image, or the same shape",
        )
    resized = resize_mask(mask, width, height)
    plane, _ = lens.undistort(resized[..., None].astype(np.float32))
    kept = plane[..., 0] >= 0.5
    if not kept.any():
        raise UserError(
            path,
            "keeps no pixel",
            expected="what counts in any colour but black",
            fix="correct it, remove it to count the whole image, or set train.masks: false",
        )
    return kept
