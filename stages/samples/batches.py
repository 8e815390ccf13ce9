"""What a fixer learns from: batches in a fixed order, each number of which gives the same again.

Nothing here keeps state, so a run that starts in the middle sees what it would have seen.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stages.run.files import text_hash


class Batch(NamedTuple):
    """Renders, the photographs they should be, and other views; [B, 3, H, W] in [0, 1]."""

    image: Tensor
    target: Tensor
    reference: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved = (None if x is None else x.to(device, non_blocking=True) for x in self)
        return Batch(*moved)

    def part(self, start: int, count: int) -> "Batch":
        """Some samples of the batch."""
        return Batch(*(None if x is None else x[start : start + count] for x in self))

    def views(self, with_reference: bool = True) -> Tensor:
        """What a fixer takes, [B, V, 3, H, W]."""
        seen = [self.image]
        if with_reference and self.reference is not None:
            seen.append(self.reference)
        return torch.stack(seen, dim=1)


class Source(Protocol):
    """A stream of micro-batches, shared out over processes."""

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """What process `rank` gets, from micro-batch number `start` on, without end."""
        ...


def seeded(*key: object) -> torch.Generator:
    """A random generator on the CPU that a key names.

    >>> first, again = seeded(0, "crop", 7), seeded(0, "crop", 7)
    >>> bool(torch.rand(1, generator=first) == torch.rand(1, generator=again))
    True
    """
    digest = text_hash(*(str(part) for part in key))
    return torch.Generator().manual_seed(int(digest[:15], 16))


def sample_number(micro: int, rank: int, processes: int, batch_size: int, index: int) -> int:
    """Position in the stream of all processes of one sample of a micro-batch.

    >>> [sample_number(3, rank, 2, 2, index) for rank in (0, 1) for index in (0, 1)]
    [12, 13, 14, 15]
    """
    return (micro * processes + rank) * batch_size + index
