"""Whether two pictures are one photograph, encoded anew, mirrored, turned, cropped, resized or lit.

A thumbnail is a picture's grey, squeezed into a square [S, S]. Pictures of one rig show the same
room, and most of their pixels agree whoever stands in it. So thumbnails are laid over one another
and compared block by block: of one photograph the worst blocks agree too, of other people, or of
the same ones a moment later, they don't. Positions are in [-0.5, 0.5], x and y, of the square.

Found are crops of up to a tenth of a side at once, not a turn by a few degrees, another lens, nor
a part of a photograph pasted into another picture. `benchmarks/README.md` has the measurement.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from stages.scenes.images import read_image, resize

SIDE_PX = 192
# The least agreement of what counts as one photograph: above neighbouring frames of a film, 0.88,
# and below what encoding, cutting, resizing and mirroring leave, 0.96.
MIN_AGREEMENT = 0.9

_SEARCHED_PX = 16  # a side of what candidates are found by
_PROMISING = 0.6  # their least correlation
_CANDIDATES = 6  # the most that a picture has
_LEVELS = ((4, 20), (2, 20), (1, 12))  # registration: each this much smaller, so many steps
_FARTHEST = 0.25  # registration that moves or stretches more has failed
_HOPELESS = 0.3  # agreement at the first level
_WORST = 2  # blocks that count
_GLARE, _CLEAR = 0.85, 0.05  # how bright is too bright, and how much of it a block may have
_NOISE = 3 / 255  # contrast of a pixel below which pictures agree as nothing is to be seen

Plane = NDArray[np.float64]


class Thumbnail(NamedTuple):
    """The grey [S, S] of a picture, squeezed, and the picture's shorter side."""

    grey: NDArray[np.uint8]
    side_px: int


class Match(NamedTuple):
    """Places of two thumbnails in their sequences, and how far they agree, at most 1."""

    first: int
    second: int
    agreement: float


def thumbnail(path: Path) -> Thumbnail:
    """What is kept of a picture to compare it. Raises UserError when it cannot be read."""
    image = read_image(path)
    grey = resize(image, SIDE_PX, SIDE_PX) @ np.array([0.299, 0.587, 0.114], np.float32)
    return Thumbnail(np.rint(255 * grey).astype(np.uint8), min(image.shape[:2]))


def thumbnails(paths: Iterable[Path]) -> list[Thumbnail]:
    """The same of many pictures."""
    return _all_at_once(thumbnail, paths)


def matches(first: Sequence[Thumbnail], second: Sequence[Thumbnail]) -> list[Match]:
    """Pictures of `first` that are photographs of `second`, each with the likest of them."""
    best_match = _all_at_once(Gallery(second).best_match, first)
    return [
        Match(place, *best) for place, best in enumerate(best_match) if best[1] >= MIN_AGREEMENT
    ]


class Gallery:
    """Pictures among which others are looked for."""

    def __init__(self, pictures: Sequence[Thumbnail]) -> None:
        self.pictures = pictures
        side = _SEARCHED_PX
        self._searched = np.array([_searched(one) for one in pictures]).reshape(-1, side * side)

    def best_match(self, picture: Thumbnail) -> tuple[int, float]:
        """Place of the candidate that agrees most, however it was turned, and how far it does.

        (0, -1) when there is none.
        """
        ways = _turned(picture)
        correlation = np.stack([self._searched @ _searched(way) for way in ways])  # [8, N]
        order = np.argsort(-correlation, axis=None, kind="stable")[:_CANDIDATES]
        best = (0, -1.0)
        for way, place in zip(*np.unravel_index(order, correlation.shape), strict=True):
            if correlation[way, place] >= _PROMISING:
                found = agreement(self.pictures[place], ways[way])
                best = max(best, (int(place), found), key=lambda one: one[1])
        return best


def agreement(first: Thumbnail, second: Thumbnail) -> float:
    """How far the worst blocks of two pictures agree, -1 to 1, the second laid over the first."""
    planes = [one.grey / 255 for one in (first, second)]
    first_from_second = np.eye(2, 3)
    for level, (factor, steps) in enumerate(_LEVELS):
        small = [_shrunk(plane, factor) for plane in planes]
        moved = _registered(*small, first_from_second, steps)
        if moved is None:
            return -1.0
        first_from_second = moved
        if level == 0 and _agreement(*small, moved, blur_px=0.6, block_px=6) < _HOPELESS:
            return -1.0
    # What a small picture lost is not asked of the other.
    coarseness = np.clip(SIDE_PX / min(first.side_px, second.side_px), 1, 2)
    return _agreement(*planes, first_from_second, blur_px=1.2 * coarseness, block_px=12)


def _all_at_once(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """What a function makes of each value, on all cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(function, values))


def _turned(picture: Thumbnail) -> list[Thumbnail]:
    """A picture in its eight ways to lie, mirrored and turned by quarters."""
    grey = picture.grey
    ways = (np.rot90(one, turns) for one in (grey, grey[:, ::-1]) for turns in range(4))
    return [picture._replace(grey=way) for way in ways]


def _searched(picture: Thumbnail) -> Plane:  # [D]
    """A vector of unit length, or zero of a picture without content, to be correlated."""
    small = _banded(_shrunk(picture.grey / 255, SIDE_PX // _SEARCHED_PX), 0.7, 4).ravel()
    small = small - small.mean()
    length = np.linalg.norm(small)
    return small / length if length > _NOISE else np.zeros_like(small)


def _shrunk(picture: Plane, factor: int) -> Plane:
    side = len(picture) // factor
    return picture.reshape(side, factor, side, factor).mean((1, 3))


def _banded(picture: Plane, fine_px: float, coarse_px: float) -> Plane:
    """What is left without noise and without light that changes slowly."""
    return gaussian_filter(picture, fine_px) - gaussian_filter(picture, coarse_px)


def _registered(first: Plane, second: Plane, start: Plane, steps: int) -> Plane | None:
    """The affine [2, 3] that `second` is sampled by to lie on `first`; None where it gets lost.

    Gauss-Newton on what differs, without what differs much: people who moved must not count.
    """
    side = len(first)
    first, second = (_banded(one, 1, side / 8) for one in (first, second))
    place = (np.arange(side) - (side - 1) / 2) / side
    y, x = np.meshgrid(place, place, indexing="ij")
    dy, dx = (side * one for one in np.gradient(first))
    slopes = np.stack([dy * y, dy * x, dy, dx * y, dx * x, dx], -1).reshape(-1, 6)
    found = start
    for _ in range(steps):
        laid = _laid(second, found, order=1).ravel()
        seen = ~np.isnan(laid)
        if seen.mean() < 0.6:
            return None
        slope, wanted, laid = slopes[seen], first.ravel()[seen], laid[seen]
        error = wanted - laid * (wanted @ laid) / (laid @ laid + 1e-9)
        weight = 1 / (1 + (error / (2 * np.median(np.abs(error)) + 1e-4)) ** 2)
        normal = (slope.T * weight) @ slope
        normal += np.eye(6) * (1e-3 * np.trace(normal) / 6 + 1e-9)
        step = np.linalg.solve(normal, (slope.T * weight) @ error).reshape(2, 3)
        turn = found[:, :2]
        found = np.column_stack([turn @ (np.eye(2) + step[:, :2]), turn @ step[:, 2] + found[:, 2]])
        if np.abs(found - np.eye(2, 3)).max() > _FARTHEST:
            return None
        if np.abs(step).max() * side < 0.02:
            break
    return found


def _laid(picture: Plane, first_from_second: Plane, order: int) -> Plane:
    """A picture sampled by an affine in positions; NaN outside of it."""
    side, turn = len(picture), first_from_second[:, :2]
    middle = np.full(2, (side - 1) / 2)
    offset = middle - turn @ middle + side * first_from_second[:, 2]
    return affine_transform(picture, turn, offset, order=order, cval=np.nan)


def _agreement(
    first: Plane, second: Plane, first_from_second: Plane, blur_px: float, block_px: int
) -> float:
    """The mean correlation of the worst blocks, of those that both pictures show."""
    side = len(first)
    second = _laid(second, first_from_second, order=3)
    seen = ~np.isnan(second)
    if (_blocks(seen.astype(float), block_px).mean(-1) > 0.6).mean() < 0.5:
        return -1.0
    telling = _telling(first, second, seen, block_px)
    one, two = (
        _blocks(_banded_where(picture, seen, blur_px, side / 12), block_px)
        for picture in (first, second)
    )
    two = two * np.sqrt(np.sum(one**2) / max(np.sum(two**2), 1e-9))
    floor = (block_px * _NOISE) ** 2
    energy = (np.sum(one**2, -1) + floor) * (np.sum(two**2, -1) + floor)
    correlation = (np.sum(one * two, -1) + floor) / np.sqrt(energy)
    return float(np.sort(correlation[telling])[:_WORST].mean())


def _telling(
    first: Plane, second: Plane, seen: NDArray[np.bool_], block_px: int
) -> NDArray[np.bool_]:
    """Blocks that both show, without those that more light would wash out if others are left."""
    shown = _blocks(seen.astype(float), block_px).mean(-1) > 0.6
    glare = np.fmax(first, second) > _GLARE
    clear = shown & (_blocks(glare.astype(float), block_px).mean(-1) < _CLEAR)
    return clear if clear.mean() > 0.25 else shown


def _banded_where(
    picture: Plane, seen: NDArray[np.bool_], fine_px: float, coarse_px: float
) -> Plane:
    """`_banded` of what is seen alone; 0 elsewhere."""
    known = np.where(seen, picture, 0)

    def blurred(sigma_px: float) -> Plane:
        weight = gaussian_filter(seen.astype(float), sigma_px)
        return gaussian_filter(known, sigma_px) / (weight + 1e-3)

    return np.where(seen, blurred(fine_px) - blurred(coarse_px), 0)


def _blocks(picture: Plane, block_px: int) -> Plane:  # [K, P]
    """Square blocks of a picture, row by row."""
    count = len(picture) // block_px
    cut = picture.reshape(count, block_px, count, block_px).swapaxes(1, 2)
    return cut.reshape(count * count, -1)
