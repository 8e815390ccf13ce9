"""Training of the fixer of size `small` from scratch, on samples from procedural worlds alone.

No file is read, so the untuned fixer was trained on no scene of any study. Validation samples are
of other worlds.
"""

from pathlib import Path

from torch import Tensor

from stages.difix.config import BaseConfig
from stages.difix.network.model import random_fixer
from stages.difix.network.precision import choose_device
from stages.difix.network.spec import SIZES
from stages.difix.pretraining.worlds_stream import WorldsStream
from stages.difix.tuning.finetune import Tuner
from stages.difix.tuning.losses import FixerLoss
from stages.difix.tuning.validation import Validator
from stages.run.checkpoint import Checkpoint

ORIGIN = "procedural worlds"
_SHEET_ROWS = 6  # validation samples on an image sheet


def pretrain(config: BaseConfig, prompt: Tensor, weights: Path, checkpoint: Checkpoint) -> Tuner:
    """Train a fixer from scratch; the tuner has the result.

    Args:
        config: section `base`.
        prompt: the embedded prompt, [1, T, C].
        weights: folder of LPIPS backbones; without them the loss lacks LPIPS.
        checkpoint: resume state.
    """
    loop = config.pretraining
    spec = SIZES["small"].changed(prompt=config.prompt, origin=ORIGIN)
    device, _ = choose_device(loop.device, "base.pretrain.device")
    stream = WorldsStream(loop, spec.warped, device)
    loss = FixerLoss(loop.losses, weights, device, loop.seed)
    samples = stream.validation_samples()
    on_sheet = range(min(_SHEET_ROWS, len(samples)))
    validator = Validator(samples, loss.perceptual, device, on_sheet)
    fixer = random_fixer(spec, config.seed, prompt)
    tuner = Tuner(fixer, loop, loss, validator, device, name="pretrain")
    tuner.run(stream, checkpoint)
    return tuner
