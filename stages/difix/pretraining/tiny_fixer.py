"""How the tiny fixer gets its start: procedural pictures, degraded on purpose, and nothing else.

No file is read, so the untuned fixer has seen no scene of any study. Held-out pairs come from the
same process under another seed.
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

# Of the shift between two views, in halves of the picture's shorter side.
_BASELINE = 0.25
_SHOWN = 6  # held-out pairs on a sheet of samples


class DeadLeavesStream:
    """Procedural pictures without end; a `batches.Source` that paints on `device`."""

    def __init__(self, config: PretrainConfig, device: torch.device):
        self.config, self.device = config, device

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """Micro-batches of one process, see `batches.Source`."""
        # Painting is many small operations: for several micro-batches at once it costs no more.
        size, together = self.config.batch_size, self.config.painted_at_once
        painted, number = None, -1
        for micro in count(start):
            wanted, place = divmod(micro * processes + rank, together)
            if painted is None or number != wanted:
                painted, number = self.batch("training", wanted, together * size), wanted
            yield painted.part(place * size, size)

    @torch.no_grad()
    def batch(self, purpose: str, number: int, pictures: int) -> Batch:
        """`pictures` degraded pictures, the clean ones, and other views of the same leaves."""
        config, size = self.config, self.config.crop_px
        generator = seeded(config.seed, purpose, number)
        leaves = scatter(pictures, config.shapes, generator).to(self.device)
        views = viewpoints(pictures, _BASELINE, generator).to(self.device)
        elsewhere = viewpoints(pictures, _BASELINE, generator).to(self.device)
        clean = paint(leaves, views, size, size)
        reference = paint(leaves, elsewhere, size, size)
        return Batch(degraded(leaves, views, clean, generator), clean, reference)

    def held_out(self) -> list[Sample]:
        """The validation pairs, on the CPU."""
        samples: list[Sample] = []
        for number in range(self.config.validation_pairs):
            parts = (one[0].cpu() for one in self.batch("held out", number, 1))
            samples.append(Sample(*parts))
        return samples


def pretrain(config: BaseConfig, prompt: Tensor, weights: Path, checkpoint: Checkpoint) -> Tuner:
    """Train a tiny fixer from nothing; its best state is `tuner.run`'s result.

    `weights` is the folder of LPIPS backbones; without them L2 is all that teaches.
    """
    loop, spec = config.pretrain, SIZES["tiny"].changed(prompt=config.prompt, origin="procedural")
    device, _ = choose_device(loop.device, "base.pretrain.device")
    stream = DeadLeavesStream(loop, device)
    loss = FixerLoss(loop.losses, weights, device, loop.seed)
    held_out = stream.held_out()
    shown = range(min(_SHOWN, len(held_out)))
    validator = Validator(held_out, loss.perceptual, device, shown)
    fixer = random_fixer(spec, config.seed, prompt)
    tuner = Tuner(fixer, loop, loss, validator, device, name="pretrain")
    tuner.run(stream, checkpoint)
    return tuner
