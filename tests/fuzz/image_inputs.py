"""Photographs and masks of every kind that is read."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from damage import Subject, bytes_of
from PIL import Image

from stages.run.errors import UserError
from stages.scenes.images import (
    focal_35mm,
    has_alpha,
    image_size,
    is_colmap_readable,
    is_image,
    read_image,
    read_mask,
)

_KINDS = (
    (".png", "RGB"),
    (".png", "P"),
    (".png", "LA"),
    (".png", "I;16"),
    (".jpg", "RGB"),
    (".jpg", "CMYK"),
    (".tif", "RGB"),
    (".tif", "F"),
    (".webp", "RGBA"),
    (".bmp", "L"),
    (".gif", "P"),
    (".ppm", "RGB"),
    (".avif", "RGB"),
    (".jp2", "RGB"),
)
_TAKE_EXIF = (".png", ".jpg", ".tif", ".webp", ".avif")


def subjects(folder: Path) -> list[Subject]:
    """Noise in each format and mode."""
    noise = np.random.default_rng(15).integers(0, 255, (24, 20, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0xA405] = 35
    found = []
    for number, (suffix, mode) in enumerate(_KINDS):
        path = folder / f"{number}{suffix}"
        if mode == "F":
            image = Image.fromarray(noise[..., 0].astype(np.float32) / 255)
        elif mode == "I;16":
            image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
        else:
            image = Image.fromarray(noise).convert("RGB").convert(mode)
        image.save(path, **({"exif": exif} if suffix in _TAKE_EXIF else {}))
        found.append(Subject(path, _damage, partial(_read, path), _sane, str(path)))
    return found


def _damage(data: bytes, draw: Random) -> bytes:
    """As of any file, or in the header, where most of what can go wrong is."""
    if draw.random() < 0.5:
        return bytes_of(data, draw)
    at = draw.randrange(min(len(data), 200))
    return data[:at] + draw.randbytes(draw.randrange(1, 9)) + data[at + 8 :]


def _read(path: Path) -> tuple[np.ndarray, list[object]]:
    """Pixels, and what the other readers say; each may refuse on its own."""
    others: list[object] = []
    for read in (read_mask, image_size, is_image, is_colmap_readable, has_alpha, focal_35mm):
        with suppress(UserError):
            others.append(read(path))
    return read_image(path), others


def _sane(found: tuple[np.ndarray, list[object]]) -> None:
    pixels, others = found
    assert pixels.dtype == np.float32
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size
    assert pixels.min() >= 0  # NaN is not
    assert pixels.max() <= 1
    for one in others:
        if isinstance(one, np.ndarray):
            assert one.dtype == bool
            assert one.shape == pixels.shape[:2]
        elif isinstance(one, tuple):
            assert one == pixels.shape[1::-1]
