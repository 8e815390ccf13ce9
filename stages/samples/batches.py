"""Batches of samples, numbered: the number alone decides a batch's content.

Nothing here keeps state, so a resumed run gets the batches that an unbroken one gets.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stages.run.files import text_hash

_WARPED_NDIM = 5


class Batch(NamedTuple):
    """Renders, their ground truth and references; [B, 3, H, W] in [0, 1].

    References of a fixer that takes them warped are [B, K, 4, H, W].
    """

    image: Tensor
    target: Tensor
    reference: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved = (None if x is None else x.to(device, non_blocking=True) for x in self)
        return Batch(*moved)

    def part(self, start: int, count: int) -> "Batch":
        """`count` samples from `start` on."""
        return Batch(*(None if x is None else x[start : start + count] for x in self))

    def views(self, with_reference: bool = True) -> Tensor:
        """The input of a fixer, [B, V, 3, H, W]: the render, then the reference.

        With warped references it is [B, 1, 3 + 4 K, H, W], see `with_warped`.
        """
        if not with_reference or self.reference is None:
            return self.image[:, None]
        if self.reference.ndim == _WARPED_NDIM:
            return with_warped(self.image[:, None], self.reference)
        return torch.stack([self.image, self.reference], dim=1)


class BatchSource(Protocol):
    """A stream of micro-batches, divided among processes."""

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """Micro-batches of process `rank`, from number `start` on, without end."""
        ...


def with_warped(images: Tensor, warped: Tensor) -> Tensor:
    """Renders [B, 1, 3, H, W] with warped references [B, K, 4, H, W] as further channels."""
    return torch.cat([images, warped.flatten(1, 2)[:, None]], dim=2)


def seeded(*key: object) -> torch.Generator:
    """A random generator on the CPU, seeded by a key.

    >>> first, again = seeded(0, "crop", 7), seeded(0, "crop", 7)
    >>> bool(torch.rand(1, generator=first) == torch.rand(1, generator=again))
    True
    """
    digest = text_hash(*(str(part) for part in key))
    return torch.Generator().manual_seed(int(digest[:15], 16))


def sample_number(micro: int, rank: int, processes: int, batch_size: int, index: int) -> int:
    """Number, over all processes, of sample `index` of a process's micro-batch.

    >>> [sample_number(3, rank, 2, 2, index) for rank in (0, 1) for index in (0, 1)]
    [12, 13, 14, 15]
    """
    return (micro * processes + rank) * batch_size + index
