"""How well a fixer does on samples that it does not learn from.

A run's rows, all of the same samples: `identity` is the render as it is, `untuned` the fixer before
its first step, `fixed` the fixer on the way, `tuned` the one that is kept; `..._withheld` without
its references.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.network.model import Fixer
from stages.quality.metrics.lpips import Lpips
from stages.quality.metrics.psnr import psnr
from stages.quality.metrics.ssim import ssim
from stages.scenes.images import write_png

MEASURES = ("psnr", "ssim", "lpips")
# Equal images have no finite PSNR, and no mean with others.
_HIGHEST_PSNR_DB = 120.0


class Sample(NamedTuple):
    """One sample, [3, H, W] each, in [0, 1], at its working size."""

    image: Tensor
    target: Tensor
    reference: Tensor | None


class Validator:
    """Measures a fixer; LPIPS is None where its weights are missing."""

    def __init__(
        self,
        samples: Sequence[Sample],
        lpips: Lpips | None,
        device: torch.device,
        shown: Sequence[int] = (),
        with_reference: bool = True,  # the fixer was made to see one
    ):
        self.samples, self.lpips, self.device, self.shown = samples, lpips, device, shown
        self.with_reference = with_reference

    @property
    def has_references(self) -> bool:
        """Whether there is a reference to withhold."""
        return self.with_reference and any(one.reference is not None for one in self.samples)

    def sums(self, fixer: Fixer | None, with_reference: bool, rank: int, processes: int) -> Tensor:
        """Sums over one process's share of the samples, [4]: the measures, and the count.

        Without a fixer the render itself is measured.
        """
        total = torch.zeros(4, dtype=torch.float64, device=self.device)
        for sample in self.samples[rank::processes]:
            picture = self.picture(fixer, sample, with_reference)
            total += self._measures(picture, sample.target[None].to(self.device))
        return total

    def means(self, sums: Tensor) -> dict[str, float | None]:
        """The measures from sums over all processes."""
        values = (sums[:3] / sums[3]).tolist()
        means = {key: round(value, 6) for key, value in zip(MEASURES, values, strict=True)}
        return means if self.lpips else means | {"lpips": None}

    @torch.no_grad()
    def picture(self, fixer: Fixer | None, sample: Sample, with_reference: bool = True) -> Tensor:
        """A sample's picture [1, 3, H, W], in [0, 1]."""
        seen = [sample.image]
        if with_reference and self.with_reference and sample.reference is not None:
            seen.append(sample.reference)
        views = torch.stack(seen)[None].to(self.device)
        return views[:, 0] if fixer is None else fixer(views).float().clamp(0, 1)

    def write_sheet(self, fixer: Fixer, folder: Path, step: int) -> None:
        """Write the shown samples as one PNG: render, fixed, photograph and reference in a row."""
        rows = [self._row(fixer, self.samples[index]) for index in self.shown]
        if not rows:
            return
        width = max(row.shape[2] for row in rows)
        sheet = torch.cat([F.pad(row, (0, width - row.shape[2])) for row in rows], dim=1)
        write_png(folder / f"step_{step:06d}.png", sheet.permute(1, 2, 0).numpy())

    def _row(self, fixer: Fixer, sample: Sample) -> Tensor:
        fixed = self.picture(fixer, sample)[0].cpu()
        pictures = [sample.image, fixed, sample.target]
        pictures += [] if sample.reference is None else [sample.reference]
        return torch.cat(pictures, dim=2)

    @torch.no_grad()
    def _measures(self, picture: Tensor, target: Tensor) -> Tensor:
        decibels = psnr(picture, target).clamp(max=_HIGHEST_PSNR_DB)
        distance = self.lpips(picture, target) if self.lpips else torch.zeros(1)
        values = (decibels, ssim(picture, target), distance, torch.ones(1))
        return torch.cat([one.double().to(self.device) for one in values])
