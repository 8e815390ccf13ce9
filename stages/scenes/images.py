"""Images at rest: float32 RGB in [0, 1], [H, W, 3]; masks are bool [H, W].

Every image file of a user is opened here, and gives pixels or one UserError. Colour profiles are
ignored: values are taken as sRGB.
"""

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stages.run.errors import UserError, warn_once
from stages.run.files import whole_file
from stages.run.process.cores import available_cores
from stages.run.process.memory import memory_bytes

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Color = Sequence[float]  # RGB in [0, 1]

# Formats by content. Not all of Pillow's: EPS starts a program, and others hold no pixels.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
_COLMAP_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "BMP")
_LOSSY_FORMATS = ("JPEG", "MPO")
_ORIENTATION, _EXIF_IFD, _FOCAL, _FOCAL_35MM = 0x0112, 0x8769, 0x920A, 0xA405
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339  # tags of a TIFF
_WHITE_IS_ZERO, _SEPARATE, _UNSIGNED, _SIGNED = 0, 2, 1, 2  # and their values
BLACK = (0.0, 0.0, 0.0)
_BYTES_PER_PIXEL = 64  # peak of decoding, conversion to floats and resampling
_PNG_THREADS = 4  # of each `png_writer`, where there are as many cores

# The limit is our own, by memory: phones take more than the pixels that Pillow allows.
Image.MAX_IMAGE_PIXELS = None
# Pillow's own warnings are silenced; what matters is reported here.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def read_image(path: Path, *, upright: bool = True, background: Color = BLACK) -> Pixels:
    """Read the first image of a file in any common format as [H, W, 3].

    EXIF orientation is applied if `upright`, greyscale repeated, 12 and 16 bits scaled, floats
    kept, alpha composited over `background`. Raises UserError when the file is missing,
    truncated, no image or too large, and for floats outside [0, 1].
    """
    with _opened(path) as image:
        orient = _ORIENT[_decoded_orientation(path, image, upright)]
        image.load()
        return np.ascontiguousarray(orient(_pixels(path, image, background)))


def read_rgba(path: Path) -> Pixels:
    """Read an image with 8-bit alpha as [H, W, 4]; alpha is 1 where a file has none.

    Raises UserError as `read_image` does.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGBA"), np.float32) / 255


def read_mask(path: Path, *, upright: bool = True) -> Mask:
    """Read a mask [H, W]: true where any colour channel is not zero, and alpha is not.

    EXIF orientation is applied if `upright`. In JPEGs, whose edges are blurred, only the brighter
    half of the levels counts.
    """
    with _opened(path) as image:
        orient = _ORIENT[_decoded_orientation(path, image, upright)]
        image.load()
        if len(image.getbands()) > 1 or image.mode == "P":
            mode = "RGBA" if image.has_transparency_data else "RGB"
            values = np.asarray(image.convert(mode))
        else:
            values = np.asarray(image)[..., None]
        mask = (values[..., :3] > (127 if image.format in _LOSSY_FORMATS else 0)).any(axis=-1)
        if values.shape[-1] == 4:
            mask &= values[..., 3] > 0
        return np.ascontiguousarray(orient(mask))


def image_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """(width, height) in px, after EXIF orientation if `upright`, from the header alone."""
    with _opened(path) as image:
        return image.size[::-1] if _decoded_orientation(path, image, upright) >= 5 else image.size


def is_image(path: Path) -> bool:
    """Whether a file has the header of an image that can be read."""
    try:
        image_size(path, upright=False)
    except UserError:
        return False
    return True


def is_colmap_readable(path: Path) -> bool:
    """Whether COLMAP reads an image too, and with the same pixels."""
    with _opened(path) as image:
        return image.format in _COLMAP_FORMATS and image.mode != "I"


def has_alpha(path: Path) -> bool:
    """Whether an image has an alpha channel or a transparent colour, from the header alone."""
    with _opened(path) as image:
        return image.has_transparency_data


def is_plain_png(path: Path) -> bool:
    """Whether a file is a PNG of 8-bit RGB, upright and without alpha, as `write_png` writes it."""
    with _opened(path) as image, path.open("rb") as file:
        is_8_bit_rgb = file.read(26)[24:] == b"\x08\x02"  # bit depth and colour type
        is_opaque = image.format == "PNG" and not image.has_transparency_data
        return is_8_bit_rgb and is_opaque and _decoded_orientation(path, image, True) == 1


def focal_35mm(path: Path) -> float | None:
    """The 35 mm equivalent focal length in an image's EXIF data, mm; None if absent."""
    return _exif_mm(path, _FOCAL_35MM)


def focal_mm(path: Path) -> float | None:
    """The focal length in an image's EXIF data, mm; None if absent."""
    return _exif_mm(path, _FOCAL)


def _exif_mm(path: Path, tag: int) -> float | None:
    with _opened(path) as image:
        try:
            mm = float(image.getexif().get_ifd(_EXIF_IFD).get(tag) or 0)
        except Exception:  # of broken data, anything: SyntaxError, TypeError, struct.error, ...
            return None
        return mm if mm > 0 and isfinite(mm) else None


def check_pixel_count(path: Path, size: tuple[int, int], bytes_per_pixel: int, fix: str) -> None:
    """Raise UserError for an image with more pixels than fit into this machine's memory."""
    limit = memory_bytes() / bytes_per_pixel
    if size[0] * size[1] > limit:
        raise UserError(
            path,
            f"{size[0]}x{size[1]} px, {size[0] * size[1] / 1e6:.0f} million pixels",
            expected=f"at most {limit / 1e6:.0f} million, {bytes_per_pixel} bytes for each in "
            f"{memory_bytes() / 2**30:.0f} GiB of memory",
            fix=fix,
        )


def write_png(path: Path, image: Pixels) -> None:
    """Write [H, W, 3], or 4 with alpha, in [0, 1] as 8-bit PNG, rounded to the nearest level."""
    _save(path, Image.fromarray(_levels(image)))


def stored(image: Pixels) -> Pixels:
    """What `read_image` gives of the file that `write_png` makes of an image [H, W, 3]."""
    return _levels(image).astype(np.float32) / 255


def _levels(image: Pixels) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


@contextmanager
def png_writer() -> Iterator[Callable[[Path, Pixels], None]]:
    """`write_png` in a few threads, as compressing takes longer than rendering on a GPU.

    A call waits while every thread has an image. The error of an earlier image is raised by a later
    call or when the block ends; all others are written by then. One thread may call; it
    leaves the arrays as they are until then.
    """
    threads = min(_PNG_THREADS, available_cores())
    unwritten: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads) as pool:

        def write(path: Path, image: Pixels) -> None:
            if len(unwritten) == threads:
                unwritten.popleft().result()
            unwritten.append(pool.submit(write_png, path, image))

        yield write
        for one in unwritten:
            one.result()


def write_mask(path: Path, mask: Mask) -> None:
    """Write a mask as 8-bit PNG of 0 and 255."""
    _save(path, Image.fromarray(mask.astype(np.uint8) * 255))


def nearest_colors(image: Pixels, positions: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours [N, 3] of the pixels at positions [N, 2], px."""
    height, width = image.shape[:2]
    columns = np.clip(positions[:, 0].astype(int), 0, width - 1)
    rows = np.clip(positions[:, 1].astype(int), 0, height - 1)
    return np.rint(255 * image[rows, columns]).astype(np.uint8)


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Resample [H, W, C] with an anti-aliasing filter; the same size returns the input."""
    if image.shape[:2] == (height, width):
        return image
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 1)


def resize_mask(mask: Mask, width: int, height: int) -> Mask:
    """Resample a mask; a pixel is set if at least half of its area was."""
    grey = Image.fromarray(mask.astype(np.float32))
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX)) >= 0.5


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An open image of a readable size. Any error in the block becomes a UserError."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if 0 in image.size:
                raise UserError(path, "an image without pixels", expected="an image")
            check_pixel_count(path, image.size, _BYTES_PER_PIXEL, "shrink it")
            yield image
    except UserError:
        raise
    # Damaged bytes make decoders raise anything: SyntaxError, struct.error, KeyError, ...
    except Exception as error:
        raise _unreadable(path, error) from error


def _pixels(path: Path, image: Image.Image, background: Color) -> Pixels:
    """Pixels [H, W, 3] of a decoded image, as they are stored."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == _SEPARATE and max(tags.get(_BITS, (8,))) > 8:
        raise UserError(  # Pillow mixes up their bytes
            path,
            "a TIFF of more than 8 bits with separate colour planes",
            expected="interleaved colours",
            fix="convert it to PNG",
        )
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_grey(path, image)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"), np.float32)
        rgba /= 255
        alpha = rgba[..., 3:]
        over = rgba[..., :3] * alpha
        return over + np.asarray(background, np.float32) * (1 - alpha) if any(background) else over
    levels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    pixels = levels.astype(np.float32)
    pixels /= 255
    return pixels


def _grey(path: Path, image: Image.Image) -> Pixels:
    """[H, W] of integers of more than 8 bits, or of floats in [0, 1]."""
    tags = getattr(image, "tag_v2", {})
    bits, sample_format = tags.get(_BITS, (16,))[0], tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    levels = np.asarray(image)
    if bits == 32 and sample_format == _UNSIGNED and image.mode == "I":
        levels = levels.view(np.uint32)
    values, what, span = levels.astype(np.float32), "integers", 65535.0
    if image.mode == "F":
        what, span = "floats", 1.0
    elif bits < 16 or (bits == 16 and sample_format == _SIGNED):
        span = float(2 ** min(bits, 15) - 1)
    low, high = float(values.min()), float(values.max())
    # Resampling leaves floats slightly out of range. NaN fails both comparisons.
    slack = 1e-3 if image.mode == "F" else 0.0
    if not (low >= -slack and high <= span + slack):
        raise UserError(
            path,
            f"{what} from {low:g} to {high:g}",
            expected=f"0 to {span:g}",
            fix="scale it to that range, or convert it to a PNG of 8 or 16 bits",
        )
    values = np.clip(values / np.float32(span), 0, 1)
    # Pillow inverts such images of 8 bits itself.
    return 1 - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


def _decoded_orientation(path: Path, image: Image.Image, upright: bool) -> int:
    """The orientation that takes the pixels as Pillow decodes them to upright, or to stored ones.

    Call it before decoding: Pillow decodes TIFFs upright and drops their tag.
    """
    if image.format == "TIFF":
        stored = _exif_orientation(path, image, warn=upright)
        return 1 if upright else {6: 8, 8: 6}.get(stored, stored)
    return _exif_orientation(path, image, warn=True) if upright else 1


def _exif_orientation(path: Path, image: Image.Image, *, warn: bool) -> int:
    """EXIF orientation, 1 to 8; 1, with a warning if `warn`, where it cannot be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation in _ORIENT:
            return int(orientation)
    except Exception:  # of broken data, anything: SyntaxError, TypeError, struct.error, ...
        orientation = None
    if warn and orientation != 0:  # some cameras write 0 for unknown
        path = Path(path)
        warn_once(
            f"{path}: unreadable EXIF orientation: this image, and others like it in its folder, "
            "are used as stored",
            f"orientation in {path.parent}",
        )
    return 1


# Stored pixels to upright ones, by EXIF orientation.
_ORIENT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def _unreadable(path: Path, error: Exception) -> UserError:
    if not Path(path).exists():
        return UserError(path, "no such file", expected="an image")
    if isinstance(error, MemoryError):
        return UserError(path, "larger than memory", expected="an image", fix="shrink it")
    if isinstance(error, PermissionError):
        return UserError(path, "no permission to read it", fix=f"chmod u+r {path}")
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = _contents(path)
    return UserError(
        path,
        f"not a whole image ({reason})",
        expected="a PNG or JPEG that can be decoded",
        fix="copy the file again from its source, or convert it to PNG",
    )


def _contents(path: Path) -> str:
    """What a file of no known format contains, by its first bytes."""
    with Path(path).open("rb") as file:
        start = file.read(12)
    if not start:
        return "empty"
    if start[4:8] == b"ftyp":  # HEIC, AVIF, videos: the file names its format
        return f"{start[8:].decode('ascii', 'replace').strip()} inside"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF that is damaged, or whose colours are not integers of 8 or 16 bits"
    return f"of no known format: {start[:8]!r}..."


def _save(path: Path, image: Image.Image) -> None:
    with whole_file(path) as scratch:
        image.save(scratch, format="PNG", compress_level=3)
