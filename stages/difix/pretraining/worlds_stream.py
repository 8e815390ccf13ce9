"""Batches of samples from procedural worlds, which stay on the device as bytes.

A batch is crops of samples of one image shape, with changes that teach what cameras and
calibrations do: references may be fewer, in another order, incomplete or exposed otherwise. A
batch depends on the seed and its number alone.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.config import PretrainConfig
from stages.difix.network.spec import RGB
from stages.difix.tuning.validation import Sample
from stages.run.progress import Progress
from stages.samples.batches import Batch, seeded
from stages.samples.worlds.triples import Triples, make
from stages.scenes.config import WARPED_CHANNELS

_EXPOSURE = 0.06  # deviation of the logarithm of a reference's brightness
_MISSING = 0.4  # share of a reference with holes that is missing
_GRID = 6  # holes per side


class WorldsStream:
    """An endless stream of samples; a `batches.BatchSource` that generates on `device`."""

    def __init__(self, config: PretrainConfig, references: int, device: torch.device):
        self.config, self.references, self.device = config, references, device
        # Samples of one image shape each, [n, H, W, 6 + 4 K] uint8.
        self._shapes: list[Tensor] = []

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """Micro-batches of one process, see `batches.BatchSource`."""
        if not self._shapes:
            parts: dict[torch.Size, list[Tensor]] = {}
            for triples in self.groups():
                parts.setdefault(triples.image.shape[1:], []).append(_joined(triples))
            self._shapes = [torch.cat(one) for one in parts.values()]
        micro = start
        while True:
            yield self.batch(micro * processes + rank)
            micro += 1

    def groups(self) -> Iterator[Triples]:
        """All samples, group by group."""
        config = self.config.worlds
        with Progress("worlds", config.groups) as progress:
            for number in range(config.groups):
                yield make(config, self.references, number, self.device)
                progress.report(number + 1)

    def held_out(self) -> Triples:
        """Samples of worlds that no training sample is of, on the CPU."""
        config = self.config
        triples = make(config.worlds, self.references, 0, self.device, held_out=True)
        generator = seeded(config.seed, "held out")
        order = torch.randperm(len(triples.image), generator=generator)[: config.validation_pairs]
        return Triples(*(part[order.to(part.device)].cpu() for part in triples))

    def validation_samples(self) -> list[Sample]:
        """The held-out samples in [0, 1]."""
        triples = self.held_out()
        parts = (part.float() / 255 for part in (triples.image, triples.target, triples.warped))
        return [Sample(*one) for one in zip(*parts, strict=True)]

    @torch.no_grad()
    def batch(self, number: int) -> Batch:
        """The batch of a number."""
        config, count = self.config, self.config.batch_size
        generator = seeded(config.seed, "batch", number)
        sizes = torch.tensor([len(one) for one in self._shapes], dtype=torch.float32)
        samples = self._shapes[int(torch.multinomial(sizes, 1, generator=generator))]
        _, height, width, _ = samples.shape
        size = min(config.crop_px, height, width)

        def drawn(most: int) -> Tensor:
            return torch.randint(most, (count,), generator=generator).to(self.device)

        line = torch.arange(size, device=self.device)
        index = drawn(len(samples))
        rows = drawn(height - size + 1)[:, None] + line
        columns = drawn(width - size + 1)[:, None] + line
        columns = torch.where(drawn(2)[:, None] == 1, columns.flip(1), columns)
        picked = samples[index[:, None, None], rows[:, :, None], columns[:, None]]
        channels = picked.movedim(-1, 1).float() / 255
        image, target, warped = channels.split([RGB, RGB, WARPED_CHANNELS * self.references], dim=1)
        warped = warped.unflatten(1, (self.references, WARPED_CHANNELS))
        image, target, warped = recolored(image, target, warped, generator)
        return Batch(image, target, disturbed(warped, config, generator))


def recolored(
    image: Tensor, target: Tensor, warped: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The same change of brightness, contrast and order of channels for all images of a sample."""
    batch, device = len(image), image.device
    order = torch.stack([torch.randperm(RGB, generator=generator) for _ in range(batch)])
    draw = torch.rand(batch, 2, generator=generator).to(device)
    gain, gamma = 0.75 + 0.5 * draw[:, 0], torch.exp(0.5 * (draw[:, 1] - 0.5))
    rows, order = torch.arange(batch, device=device)[:, None], order.to(device)

    def changed(images: Tensor) -> Tensor:  # [B, 3, ...]
        shape = (batch, *[1] * (images.dim() - 1))
        mixed = images[rows, order].clamp(min=1e-5)
        return (gain.view(shape) * mixed ** gamma.view(shape)).clamp(0, 1)

    colors, agreement = warped.split([RGB, 1], dim=2)
    colors = changed(colors.transpose(1, 2)).transpose(1, 2) * (agreement > 0)
    return changed(image), changed(target), torch.cat([colors, agreement], dim=2)


def disturbed(warped: Tensor, config: PretrainConfig, generator: torch.Generator) -> Tensor:
    """References [B, K, 4, H, W], some fewer, shuffled, incomplete or exposed otherwise.

    Those that are there come first, so that fewer references leave no gap.
    """
    batch, count, _, height, width = warped.shape
    device = warped.device

    def chance(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    number = torch.arange(count).expand(batch, count)
    few = torch.randint(1, count + 1, (batch, 1), generator=generator)
    is_there = number < torch.where(chance(1) < config.fewer, few, count)
    order = torch.where(chance(1) < config.shuffled, chance(count).argsort(dim=1), number)
    rows = torch.arange(batch, device=device)[:, None]
    warped = warped[rows, order.to(device)] * is_there.to(device)[..., None, None, None]
    has_holes = (chance(count) < config.holes).to(device)[..., None, None, None]
    coarse = chance(count, _GRID, _GRID).to(device)
    fine = F.interpolate(coarse, (height, width), mode="bilinear")[:, :, None]
    warped = warped * ((fine > _MISSING) | ~has_holes)
    brightness = _EXPOSURE * torch.randn(batch, count, RGB, generator=generator)
    gain = torch.exp(brightness * (chance(count, 1) < config.exposed)).to(device)
    colors, agreement = warped.split([RGB, 1], dim=2)
    colors = (colors * gain[..., None, None]).clamp(0, 1)
    return torch.cat([colors, agreement], dim=2)


def _joined(triples: Triples) -> Tensor:
    """All channels of samples, last: a crop is then contiguous."""
    parts = [triples.image, triples.target, triples.warped.flatten(1, 2)]
    return torch.cat(parts, dim=1).movedim(1, -1).contiguous()
