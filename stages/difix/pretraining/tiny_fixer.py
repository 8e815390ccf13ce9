"""Training of the tiny fixer from scratch, on procedural images with synthetic artefacts alone.

No file is read, so the untuned fixer was trained on no scene of any study. Validation samples come
from the same process with another seed.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from stages.difix.config import BaseConfig, PretrainConfig
from stages.difix.network.model import random_fixer
from stages.difix.network.precision import choose_device
from stages.difix.network.spec import SIZES
from stages.difix.pretraining.artefacts import degraded
from stages.difix.pretraining.dead_leaves import paint, scatter, viewpoints
from stages.difix.tuning.finetune import Tuner
from stages.difix.tuning.losses import FixerLoss
from stages.difix.tuning.validation import Sample, Validator
from stages.run.checkpoint import Checkpoint
from stages.samples.batches import Batch, seeded

# Of the shift between two views, in halves of the image's shorter side.
_BASELINE = 0.25
_SHEET_ROWS = 6  # validation samples on an image sheet


class DeadLeavesStream:
    """An endless stream of procedural samples; a `batches.BatchSource` that paints on `device`."""

    def __init__(self, config: PretrainConfig, device: torch.device):
        self.config, self.device = config, device

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """Micro-batches of one process, see `batches.BatchSource`."""
        # Painting is many small operations: several micro-batches at once cost no more than one.
        size, together = self.config.batch_size, self.config.painted_at_once
        painted, number = None, -1
        for micro in count(start):
            block, index = divmod(micro * processes + rank, together)
            if painted is None or number != block:
                painted, number = self.batch("training", block, together * size), block
            yield painted.part(index * size, size)

    @torch.no_grad()
    def batch(self, purpose: str, number: int, images: int) -> Batch:
        """`images` degraded images, the clean ones, and other views of the same leaves."""
        config, size = self.config, self.config.crop_px
        generator = seeded(config.seed, purpose, number)
        leaves = scatter(images, config.shapes, generator).to(self.device)
        views = viewpoints(images, _BASELINE, generator).to(self.device)
        other_views = viewpoints(images, _BASELINE, generator).to(self.device)
        clean = paint(leaves, views, size, size)
        reference = paint(leaves, other_views, size, size)
        return Batch(degraded(leaves, views, clean, generator), clean, reference)

    def validation_samples(self) -> list[Sample]:
        """The validation samples, on the CPU."""
        samples: list[Sample] = []
        for number in range(self.config.validation_pairs):
            parts = (one[0].cpu() for one in self.batch("held out", number, 1))
            samples.append(Sample(*parts))
        return samples


def pretrain(config: BaseConfig, prompt: Tensor, weights: Path, checkpoint: Checkpoint) -> Tuner:
    """Train a tiny fixer from scratch; the tuner has the result.

    Args:
        config: section `base`.
        prompt: the embedded prompt, [1, T, C].
        weights: folder of LPIPS backbones; without them the loss is L2 alone.
        checkpoint: resume state.
    """
    loop, spec = (
        config.pretraining,
        SIZES["tiny"].changed(prompt=config.prompt, origin="procedural"),
    )
    device, _ = choose_device(loop.device, "base.pretrain.device")
    stream = DeadLeavesStream(loop, device)
    loss = FixerLoss(loop.losses, weights, device, loop.seed)
    samples = stream.validation_samples()
    on_sheet = range(min(_SHEET_ROWS, len(samples)))
    validator = Validator(samples, loss.perceptual, device, on_sheet)
    fixer = random_fixer(spec, config.seed, prompt)
    tuner = Tuner(fixer, loop, loss, validator, device, name="pretrain")
    tuner.run(stream, checkpoint)
    return tuner
