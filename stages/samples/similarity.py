"""Whether two images are one, encoded anew, mirrored, rotated, cropped, resized or relit.

A thumbnail is an image's grey, resized to a square [S, S]. Images of one rig show the same room, so
most of their pixels agree whoever stands in it. Thumbnails are therefore registered and compared
block by block: in copies of one image the worst blocks agree too; they do not where other people
stand, or the same people at another timestamp. Positions are in [-0.5, 0.5], x and y, of the
square.

Crops of up to a tenth of a side at once are recognised; not a rotation by a few degrees, another
lens, or a part of an image pasted into another. `benchmarks/README.md` has the measurement.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from stages.run.process.cores import available_cores
from stages.scenes.images import read_image, resize

SIDE_PX = 192
# Agreement from which two images count as one: above that of neighbouring video frames, 0.88, and
# below what encoding, cropping, resizing and mirroring leave, 0.96.
MIN_AGREEMENT = 0.9

_DESCRIPTOR_PX = 16  # side of the thumbnails that candidates are searched by
_MIN_CORRELATION = 0.6  # of candidates
_MAX_CANDIDATES = 6
_LEVELS = ((4, 20), (2, 20), (1, 12))  # of registration: (downscaling, steps)
_MAX_CHANGE = 0.25  # registration that moves or stretches more has failed
_MIN_FIRST_AGREEMENT = 0.3  # after the first level; below, the images differ
_WORST_BLOCKS = 2  # blocks that the agreement is the mean of
_GLARE, _MAX_GLARE = 0.85, 0.05  # brightness of glare, and the share of it that a block may have
_NOISE = 3 / 255  # contrast of a pixel below which blocks count as flat and agree

Plane = NDArray[np.float64]


class Thumbnail(NamedTuple):
    """An image's grey, resized to [S, S], and the shorter side of the image itself."""

    grey: NDArray[np.uint8]
    side_px: int


class Match(NamedTuple):
    """Indices of two thumbnails in their sequences, and their agreement, at most 1."""

    first: int
    second: int
    agreement: float


def thumbnail(path: Path) -> Thumbnail:
    """The thumbnail of an image. Raises UserError when it cannot be read."""
    image = read_image(path)
    grey = resize(image, SIDE_PX, SIDE_PX) @ np.array([0.299, 0.587, 0.114], np.float32)
    return Thumbnail(np.rint(255 * grey).astype(np.uint8), min(image.shape[:2]))


def thumbnails(paths: Iterable[Path]) -> list[Thumbnail]:
    """Thumbnails of many images, on all cores."""
    return _parallel(thumbnail, paths)


def matches(first: Sequence[Thumbnail], second: Sequence[Thumbnail]) -> list[Match]:
    """Images of `first` that are also in `second`, each with its best match there."""
    best = _parallel(Gallery(second).best_match, first)
    return [Match(index, *one) for index, one in enumerate(best) if one[1] >= MIN_AGREEMENT]


class Gallery:
    """Images that others are searched in."""

    def __init__(self, images: Sequence[Thumbnail]) -> None:
        self.images = images
        side = _DESCRIPTOR_PX
        self._descriptors = np.array([_descriptor(one) for one in images]).reshape(-1, side * side)

    def best_match(self, query: Thumbnail) -> tuple[int, float]:
        """Index and agreement of the image that agrees most with one orientation of `query`.

        (0, -1) when there is no candidate.
        """
        queries = _orientations(query)
        correlation = np.stack([self._descriptors @ _descriptor(one) for one in queries])  # [8, N]
        order = np.argsort(-correlation, axis=None, kind="stable")[:_MAX_CANDIDATES]
        best = (0, -1.0)
        for orientation, index in zip(*np.unravel_index(order, correlation.shape), strict=True):
            if correlation[orientation, index] >= _MIN_CORRELATION:
                value = agreement(self.images[index], queries[orientation])
                best = max(best, (int(index), value), key=lambda one: one[1])
        return best


def agreement(first: Thumbnail, second: Thumbnail) -> float:
    """Correlation of the worst blocks of two images, -1 to 1, after registration."""
    planes = [one.grey / 255 for one in (first, second)]
    first_from_second = np.eye(2, 3)
    for level, (factor, steps) in enumerate(_LEVELS):
        small = [_downscaled(plane, factor) for plane in planes]
        registered = _register(*small, first_from_second, steps)
        if registered is None:
            return -1.0
        first_from_second = registered
        if level == 0:
            coarse = _agreement(*small, registered, blur_px=0.6, block_px=6)
            if coarse < _MIN_FIRST_AGREEMENT:
                return -1.0
    # Detail that one image is too small to have is blurred in both.
    coarseness = np.clip(SIDE_PX / min(first.side_px, second.side_px), 1, 2)
    return _agreement(*planes, first_from_second, blur_px=1.2 * coarseness, block_px=12)


def _parallel(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """A function of each value, in order, on all cores."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(function, values))


def _orientations(image: Thumbnail) -> list[Thumbnail]:
    """A thumbnail in its eight orientations: rotations by quarters, mirrored or not."""
    grey = image.grey
    rotated = (np.rot90(one, quarters) for one in (grey, grey[:, ::-1]) for quarters in range(4))
    return [image._replace(grey=one) for one in rotated]


def _descriptor(image: Thumbnail) -> Plane:  # [D]
    """A vector of unit length for correlation; zero for an image without content."""
    small = _band_pass(_downscaled(image.grey / 255, SIDE_PX // _DESCRIPTOR_PX), 0.7, 4).ravel()
    small = small - small.mean()
    length = np.linalg.norm(small)
    return small / length if length > _NOISE else np.zeros_like(small)


def _downscaled(image: Plane, factor: int) -> Plane:
    side = len(image) // factor
    return image.reshape(side, factor, side, factor).mean((1, 3))


def _band_pass(image: Plane, fine_px: float, coarse_px: float) -> Plane:
    """The image without noise and without slow changes of light."""
    return gaussian_filter(image, fine_px) - gaussian_filter(image, coarse_px)


def _register(first: Plane, second: Plane, start: Plane, steps: int) -> Plane | None:
    """The affine [2, 3] that `second` is sampled by to match `first`; None where that fails.

    Gauss-Newton on the differences, large ones weighted down: people who moved must not count.
    """
    side = len(first)
    first, second = (_band_pass(one, 1, side / 8) for one in (first, second))
    positions = (np.arange(side) - (side - 1) / 2) / side
    y, x = np.meshgrid(positions, positions, indexing="ij")
    dy, dx = (side * one for one in np.gradient(first))
    jacobian = np.stack([dy * y, dy * x, dy, dx * y, dx * x, dx], -1).reshape(-1, 6)
    affine = start
    for _ in range(steps):
        warped = _warp(second, affine, order=1).ravel()
        inside = ~np.isnan(warped)
        if inside.mean() < 0.6:
            return None
        slope, target, warped = jacobian[inside], first.ravel()[inside], warped[inside]
        error = target - warped * (target @ warped) / (warped @ warped + 1e-9)
        weight = 1 / (1 + (error / (2 * np.median(np.abs(error)) + 1e-4)) ** 2)
        normal = (slope.T * weight) @ slope
        normal += np.eye(6) * (1e-3 * np.trace(normal) / 6 + 1e-9)
        step = np.linalg.solve(normal, (slope.T * weight) @ error).reshape(2, 3)
        linear = affine[:, :2]
        shift = linear @ step[:, 2] + affine[:, 2]
        affine = np.column_stack([linear @ (np.eye(2) + step[:, :2]), shift])
        if np.abs(affine - np.eye(2, 3)).max() > _MAX_CHANGE:
            return None
        if np.abs(step).max() * side < 0.02:
            break
    return affine


def _warp(image: Plane, first_from_second: Plane, order: int) -> Plane:
    """An image sampled by an affine in positions; NaN outside of it."""
    side, linear = len(image), first_from_second[:, :2]
    middle = np.full(2, (side - 1) / 2)
    offset = middle - linear @ middle + side * first_from_second[:, 2]
    return affine_transform(image, linear, offset, order=order, cval=np.nan)


def _agreement(
    first: Plane, second: Plane, first_from_second: Plane, blur_px: float, block_px: int
) -> float:
    """The mean correlation of the worst blocks, of those that both images show."""
    side = len(first)
    second = _warp(second, first_from_second, order=3)
    inside = ~np.isnan(second)
    if (_blocks(inside.astype(float), block_px).mean(-1) > 0.6).mean() < 0.5:
        return -1.0
    counted = _counted_blocks(first, second, inside, block_px)
    one, two = (
        _blocks(_masked_band_pass(image, inside, blur_px, side / 12), block_px)
        for image in (first, second)
    )
    two = two * np.sqrt(np.sum(one**2) / max(np.sum(two**2), 1e-9))
    floor = (block_px * _NOISE) ** 2
    energy = (np.sum(one**2, -1) + floor) * (np.sum(two**2, -1) + floor)
    correlation = (np.sum(one * two, -1) + floor) / np.sqrt(energy)
    return float(np.sort(correlation[counted])[:_WORST_BLOCKS].mean())


def _counted_blocks(
    first: Plane, second: Plane, inside: NDArray[np.bool_], block_px: int
) -> NDArray[np.bool_]:
    """Blocks that both images show; without those that have glare, if enough others are left."""
    both_show = _blocks(inside.astype(float), block_px).mean(-1) > 0.6
    glare = np.fmax(first, second) > _GLARE
    clear = both_show & (_blocks(glare.astype(float), block_px).mean(-1) < _MAX_GLARE)
    return clear if clear.mean() > 0.25 else both_show


def _masked_band_pass(
    image: Plane, mask: NDArray[np.bool_], fine_px: float, coarse_px: float
) -> Plane:
    """`_band_pass` of the pixels in the mask alone; 0 elsewhere."""
    known = np.where(mask, image, 0)

    def blurred(sigma_px: float) -> Plane:
        weight = gaussian_filter(mask.astype(float), sigma_px)
        return gaussian_filter(known, sigma_px) / (weight + 1e-3)

    return np.where(mask, blurred(fine_px) - blurred(coarse_px), 0)


def _blocks(image: Plane, block_px: int) -> Plane:  # [K, P]
    """Square blocks of an image, row by row."""
    count = len(image) // block_px
    blocks = image.reshape(count, block_px, count, block_px).swapaxes(1, 2)
    return blocks.reshape(count * count, -1)
