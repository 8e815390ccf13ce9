"""Measures of a fixer on samples that it is not trained on.

A run's rows, all over the same samples: `identity` is the render itself, `untuned` the fixer before
its first step, `fixed` the fixer during the run, `tuned` the one that is kept; `..._withheld`
without references, `..._wrong` with those of another sample.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.network.model import Fixer
from stages.quality.metrics.lpips import Lpips
from stages.quality.metrics.psnr import psnr
from stages.quality.metrics.ssim import ssim
from stages.samples.batches import Batch
from stages.scenes.images import write_png

MEASURES = ("psnr", "ssim", "lpips")
# Of a sample: its own, none, or those of another one.
References = Literal["own", "withheld", "wrong"]
# Equal images have no finite PSNR, and no mean with others.
_HIGHEST_PSNR_DB = 120.0


class Sample(NamedTuple):
    """One sample, [3, H, W] each, in [0, 1], at its working size.

    Warped references are [K, 4, H, W].
    """

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
        on_sheet: Sequence[int] = (),
        with_reference: bool = True,
    ):
        """`on_sheet` are indices for image sheets; `with_reference`: the fixer expects one."""
        self.samples, self.lpips, self.device, self.on_sheet = samples, lpips, device, on_sheet
        self.with_reference = with_reference

    def has(self, references: References) -> bool:
        """Whether samples can be measured with such references."""
        if references == "own":
            return True
        known = [one.reference for one in self.samples if one.reference is not None]
        enough = len({one.shape for one in known}) == 1 and len(known) == len(self.samples) > 1
        return self.with_reference and (enough if references == "wrong" else bool(known))

    def sums(
        self, fixer: Fixer | None, references: References, rank: int, processes: int
    ) -> Tensor:
        """Sums over one process's share of the samples, [4]: the measures, and the count.

        Without a fixer the render itself is measured.
        """
        total = torch.zeros(4, dtype=torch.float64, device=self.device)
        for index in range(rank, len(self.samples), processes):
            sample = self.samples[index]
            if references == "wrong":
                sample = sample._replace(reference=self.samples[index - 1].reference)
            output = self.output(fixer, sample, references != "withheld")
            total += self._measures(output, sample.target[None].to(self.device))
        return total

    def means(self, sums: Tensor) -> dict[str, float | None]:
        """The measures from sums over all processes."""
        values = (sums[:3] / sums[3]).tolist()
        means = {key: round(value, 6) for key, value in zip(MEASURES, values, strict=True)}
        return means if self.lpips else means | {"lpips": None}

    @torch.no_grad()
    def output(self, fixer: Fixer | None, sample: Sample, with_reference: bool = True) -> Tensor:
        """The fixed view of a sample, or its render without a fixer: [1, 3, H, W] in [0, 1]."""
        image, reference = sample.image[None], sample.reference
        if fixer is None:
            return image.to(self.device)
        batch = Batch(image, image, None if reference is None else reference[None])
        views = batch.views(with_reference and self.with_reference)
        return fixer(views.to(self.device)).float().clamp(0, 1)

    def write_sheet(self, fixer: Fixer, folder: Path, step: int) -> None:
        """Write samples as one PNG, in rows of render, fixed view, ground truth and reference."""
        rows = [self._row(fixer, self.samples[index]) for index in self.on_sheet]
        if not rows:
            return
        width = max(row.shape[2] for row in rows)
        sheet = torch.cat([F.pad(row, (0, width - row.shape[2])) for row in rows], dim=1)
        write_png(folder / f"step_{step:06d}.png", sheet.permute(1, 2, 0).numpy())

    def _row(self, fixer: Fixer, sample: Sample) -> Tensor:
        fixed = self.output(fixer, sample)[0].cpu()
        images = [sample.image, fixed, sample.target]
        if sample.reference is not None:
            warped = sample.reference.ndim == 4
            images.append(sample.reference[0, :3] if warped else sample.reference)
        return torch.cat(images, dim=2)

    @torch.no_grad()
    def _measures(self, output: Tensor, target: Tensor) -> Tensor:
        decibels = psnr(output, target).clamp(max=_HIGHEST_PSNR_DB)
        distance = self.lpips(output, target) if self.lpips else torch.zeros(1)
        values = (decibels, ssim(output, target), distance, torch.ones(1))
        return torch.cat([one.double().to(self.device) for one in values])
