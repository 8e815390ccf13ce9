"""Images at rest: float32 RGB in [0, 1], [H, W, 3]; masks are bool [H, W]."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.run.errors import UserError
from stages.run.files import whole_file

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


def read_image(path: Path, *, upright: bool = True) -> Pixels:
    """Read an image of any common kind as [H, W, 3].

    EXIF orientation is applied if `upright`, greyscale repeated, 16 bits scaled, alpha laid over
    black. Raises UserError when the file is missing, truncated or no image.
    """
    with _opened(path) as image:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            grey = np.asarray(image, np.float32) / 65535
            return np.repeat(grey[..., None], 3, axis=-1)
        if "A" in image.getbands() or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"), np.float32) / 255
            return np.ascontiguousarray(rgba[..., :3] * rgba[..., 3:])
        return np.asarray(image.convert("RGB"), np.float32) / 255


def read_mask(path: Path) -> Mask:
    """Read a mask [H, W]: true where any colour channel is not zero; alpha does not count."""
    with _opened(path) as image:
        bands = image.getbands()
        values = np.atleast_3d(np.asarray(image))
    return values[..., : len(bands) - (bands[-1] == "A")].any(axis=-1)


def image_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """(width, height) in px, after EXIF orientation if `upright`, from the header alone."""
    try:
        with Image.open(path) as image:
            turned = upright and image.getexif().get(0x0112, 1) >= 5
            return image.size[::-1] if turned else image.size
    except (OSError, UnidentifiedImageError) as error:
        raise _unreadable(path, error) from error


def write_png(path: Path, image: Pixels) -> None:
    """Write [H, W, 3] in [0, 1] as 8-bit PNG, rounded to the nearest level."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    _save(path, Image.fromarray(levels))


def write_mask(path: Path, mask: Mask) -> None:
    """Write a mask as 8-bit PNG of 0 and 255."""
    _save(path, Image.fromarray(mask.astype(np.uint8) * 255))


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Resample [H, W, 3] with an anti-aliasing filter; the same size returns the input."""
    if image.shape[:2] == (height, width):
        return image
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 1)


def resize_mask(mask: Mask, width: int, height: int) -> Mask:
    """Resample a mask; a pixel stays in when at least half of its area was."""
    grey = Image.fromarray(mask.astype(np.float32))
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX)) >= 0.5


def _opened(path: Path) -> Image.Image:
    """An open image whose pixels are fully decoded."""
    try:
        image = Image.open(path)
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    return image


def _unreadable(path: Path, error: Exception) -> UserError:
    if not Path(path).exists():
        return UserError(path, "no such file", expected="an image")
    return UserError(
        path, f"not a whole image ({error})", expected="a PNG or JPEG that can be decoded",
        fix="copy the file again from its source",
    )  # fmt: skip


def _save(path: Path, image: Image.Image) -> None:
    with whole_file(path) as scratch:
        image.save(scratch, format="PNG", compress_level=3)
