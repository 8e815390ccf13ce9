"""The part of a view that its people fill: what the measures `crop_...` are of."""

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice]  # rows and columns

# Of the longer side of the image, around the people.
_MARGIN = 1 / 32


def people_box(mask: NDArray[np.bool_], least_px: int) -> Box | None:
    """The bounding box of a mask [H, W] with a margin, at least `least_px` a side.

    None for an empty mask. A box at a border is moved inwards; an image smaller than `least_px` is
    taken whole.

    >>> mask = np.zeros((100, 64), bool)
    >>> mask[50:60, 2:30] = True
    >>> people_box(mask, 32)
    (slice(39, 71, None), slice(0, 33, None))
    """
    if not mask.any():
        return None
    margin = round(_MARGIN * max(mask.shape))
    rows, columns = (_reach(mask.any(axis=axis), margin, least_px) for axis in (1, 0))
    return rows, columns


def _reach(filled: NDArray[np.bool_], margin: int, least_px: int) -> slice:
    """The range of one axis."""
    (where,) = np.nonzero(filled)
    start, stop = max(int(where[0]) - margin, 0), min(int(where[-1]) + 1 + margin, len(filled))
    size = max(stop - start, min(least_px, len(filled)))
    start = min(max(start - (size - (stop - start)) // 2, 0), len(filled) - size)
    return slice(start, start + size)
