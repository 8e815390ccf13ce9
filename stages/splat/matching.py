"""Matches of SIFT descriptors by torch on a GPU, as COLMAP's brute-force matcher finds them.

A descriptor has 128 whole numbers from 0 to 255 and a length of 512. Products of two are below
2^24, so float32 and TF32 hold them and every partial sum exactly: matches depend neither on the
device nor on batches. COLMAP's default on a CPU looks for approximate neighbours.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.process.gpus import expect_gpu, has_driver
from stages.scenes.colmap_matching import Matcher, ReadDescriptors

if TYPE_CHECKING:  # torch takes seconds to import, and most machines need it for no match
    from torch import Tensor

_LOGGER = logging.getLogger(__name__)

_SQUARED_LENGTH = 512.0**2
_MAX_DISTANCE = 0.7  # radians between descriptors; COLMAP's default
_BATCH = 2**26  # products at once: 256 MiB, and as much again for what is computed from them
_HELD = 256  # images whose descriptors stay on the device, about 1 MiB each


def matcher_of(choice: Literal["auto", "cpu", "cuda"], key: str) -> Matcher | None:
    """The matcher on a GPU; None for COLMAP's own on the CPU.

    Raises UserError that names `key` of params.yaml when there is no GPU for `cuda`, and for
    `auto` in a job that was given one.
    """
    if choice == "cpu":
        return None
    has_gpu = False
    if has_driver():
        import torch

        has_gpu = torch.cuda.is_available()
    if not has_gpu:
        if choice == "cuda":
            raise UserError(key, "cuda, but torch sees no GPU", fix="set it to auto or cpu")
        expect_gpu(key)
        return None
    return match_on_gpu


def match_on_gpu(
    read: ReadDescriptors, pairs: Sequence[tuple[int, int]], max_ratio: float
) -> Iterator[NDArray[np.uint32]]:
    """Rows [M, 2] of each pair of images that are mutually nearest and pass the ratio test."""
    import torch

    _LOGGER.info("features of %d pairs are matched on %s", len(pairs), torch.cuda.get_device_name())
    return match(read, pairs, max_ratio, "cuda")


def match(
    read: ReadDescriptors, pairs: Sequence[tuple[int, int]], max_ratio: float, device: str
) -> Iterator[NDArray[np.uint32]]:
    """The same on any device."""
    import torch

    @lru_cache(maxsize=_HELD)
    def held(image: int) -> "Tensor":
        return torch.from_numpy(np.array(read(image), np.uint8)).to(device)

    with torch.inference_mode():
        for one, other in pairs:
            a, b = held(one).float(), held(other).float()
            b_of_a, a_of_b = nearest(a, b, max_ratio), nearest(b, a, max_ratio)
            rows = torch.nonzero(b_of_a >= 0)[:, 0]
            rows = rows[a_of_b[b_of_a[rows]] == rows]
            found = torch.stack([rows, b_of_a[rows]], dim=1)
            yield found.cpu().numpy().astype(np.uint32)


def nearest(a: "Tensor", b: "Tensor", max_ratio: float) -> "Tensor":
    """Row [Na] of `b` nearest to each row of `a`; -1 where it is too far or not distinct.

    Args:
        a: descriptors [Na, 128], float32.
        b: descriptors [Nb, 128], float32.
        max_ratio: of the distances from the nearest and from the second one, below which the
            nearest is distinct. Equally near ones never are.
    """
    found = a.new_full((len(a),), -1).long()
    step = max(1, _BATCH // max(len(b), 1))
    for start in range(0, len(a) if len(b) else 0, step):
        rows = a[start : start + step]
        product = rows @ b.T
        first, index = product.max(dim=1)
        # COLMAP takes descriptors at a right angle for the second of one.
        product.scatter_(1, index[:, None], 0.0)
        near, second = (_angle(each) for each in (first, product.amax(dim=1)))
        distinct = (near <= _MAX_DISTANCE) & (near < max_ratio * second)
        found[start : start + step] = index.where(distinct, found[start : start + step])
    return found


def _angle(product: "Tensor") -> "Tensor":
    """Angles between descriptors, radians, float64."""
    return (product.double() / _SQUARED_LENGTH).clamp(max=1.0).arccos()
