"""The loss of a fixed view: L2, LPIPS, Gram matrices and structural dissimilarity.

The published recipe (Wu et al. 2025), which has no structural dissimilarity, with weights from
params. Images are [B, 3, H, W] in [0, 1]; the fixer's output is not clamped, so that pixels outside
the range have a gradient. All terms are computed in float32.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stages.difix.config import LossConfig
from stages.quality.metrics.lpips import Lpips
from stages.quality.metrics.ssim import ssim_of_windows
from stages.quality.metrics.weights import absence, remedy
from stages.samples.batches import seeded

# Of relu1_2, 2_2, 3_3, 4_3 and 5_3 in the published loss; 1 for layers of other backbones.
_GRAM_WEIGHTS = {"vgg": (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)}
_NETS = ("vgg", "alex", "squeeze")


class Terms(NamedTuple):
    """The loss and its unweighted terms, scalars."""

    loss: Tensor
    l2: Tensor
    lpips: Tensor
    gram: Tensor
    ssim: Tensor  # 1 - SSIM, over the windows within the image


class FixerLoss:
    """Weighted sum of the terms; without LPIPS and Gram where no backbone's weights exist."""

    def __init__(self, config: LossConfig, weights: Path, device: torch.device, seed: int = 0):
        self.config, self.seed = config, seed
        self.net, self.note = _choose_net(config, weights)
        self.perceptual = Lpips(weights, self.net, str(device)) if self.net else None
        if self.note:
            fix = remedy(config.net)
            print(f"WARNING: {self.note}\n  fix: {fix}", file=sys.stderr, flush=True)

    @property
    def differs(self) -> str:
        """Why the terms are not those of the params, or nothing."""
        return self.note if self.config.lpips or self.config.gram else ""

    def effective(self, steps: int) -> dict[str, float | str | None]:
        """Weights of the terms that a run of so many steps had, and their net."""
        known, config = self.perceptual is not None, self.config
        lpips = config.lpips if known else 0.0
        gram = config.gram if known and config.gram_warmup_steps < steps else 0.0
        net = self.net if lpips or gram else None
        return {"l2": config.l2, "lpips": lpips, "gram": gram, "ssim": config.ssim, "net": net}

    def has_gram(self, step: int) -> bool:
        """Whether an optimisation step has the Gram term: its warm-up is over."""
        return bool(self.perceptual and self.config.gram) and step >= self.config.gram_warmup_steps

    def corner(self, step: int, height: int, width: int) -> Tensor:
        """Top and left of the crop of the Gram term at a step, [2]."""
        generator = seeded(self.seed, "gram crop", step)
        size = self.config.gram_crop_px
        free = (max(side - size, 0) for side in (height, width))
        return torch.cat([torch.randint(one + 1, (1,), generator=generator) for one in free])

    def __call__(
        self, output: Tensor, target: Tensor, step: int, corner: Tensor | None = None
    ) -> Terms:
        """Loss of a batch at an optimisation step; `corner` is that of the step, on any device."""
        config = self.config
        with torch.autocast(output.device.type, enabled=False):
            output, target = output.float(), target.float()
            if config.clamp == "hard":
                output = output.clamp(0, 1)
            # The published loss is of images in [-1, 1], whose errors are twice as large.
            l2 = 4 * (output - target).square().mean()
            lpips = gram = dissimilarity = l2.new_zeros(())
            if config.ssim:
                dissimilarity = 1 - ssim_of_windows(clamped(output), target).mean()
            if self.perceptual and (config.lpips or config.gram):
                features = target_features = None
                inside, size = clamped(output), config.gram_crop_px
                if config.lpips:
                    features, target_features = self.perceptual.activations(inside, target)
                    lpips = self.perceptual.between(features, target_features).mean()
                if self.has_gram(step):
                    if features is None or max(target.shape[-2:]) > size:
                        corner = self.corner(step, *target.shape[-2:]) if corner is None else corner
                        inside, target = (square(one, size, corner) for one in (inside, target))
                        features, target_features = self.perceptual.activations(inside, target)
                    gram = self._gram(
                        features, target_features, inside.shape[-2] * inside.shape[-1]
                    )
            loss = config.l2 * l2 + config.lpips * lpips + config.gram * gram
            loss = loss + config.ssim * dissimilarity
        return Terms(loss, l2, lpips, gram, dissimilarity)

    def _gram(self, features: list[Tensor], target_features: list[Tensor], pixels: int) -> Tensor:
        """Gram term of the activations of crops with `pixels` pixels."""
        distance = batch_gram_distance if self.config.gram_over == "batch" else gram_distance
        layers = [distance(x, y) for x, y in zip(features, target_features, strict=True)]
        weights = _GRAM_WEIGHTS.get(self.net or "", (1.0,) * len(layers))
        total = sum(weight * layer for weight, layer in zip(weights, layers, strict=True))
        # The distance grows with the area: a smaller crop is scaled to the published one.
        return torch.as_tensor(total) * self.config.gram_crop_px**2 / pixels


def clamped(images: Tensor) -> Tensor:
    """Images clamped to [0, 1], with the gradient of the unclamped images."""
    return images + (images.clamp(0, 1) - images).detach()


def square(images: Tensor, size: int, corner: Tensor) -> Tensor:
    """The crop [..., size, size] with `corner` as top left pixel; a shorter side is not cropped."""
    for dim, start in zip((-2, -1), corner, strict=True):
        if images.shape[dim] > size:
            # By indices: a CUDA graph is recorded before the corner is known.
            indices = start.to(images.device) + torch.arange(size, device=images.device)
            images = images.index_select(dim, indices)
    return images


def gram_distance(a: Tensor, b: Tensor) -> Tensor:  # [B, C, h, w]
    """Mean squared difference of the Gram matrices of each image, divided by C h w."""
    count = a[0].numel()
    return (gram_matrices(a) - gram_matrices(b)).square().mean() / count


def batch_gram_distance(a: Tensor, b: Tensor) -> Tensor:  # [B, C, h, w]
    """The same of one matrix [B C, B C] of a batch, which also relates channels of two images."""
    one, other = (features.flatten(0, 1)[None] for features in (a, b))
    return gram_distance(one, other) * len(a)


def gram_matrices(features: Tensor) -> Tensor:  # [B, C, h, w] -> [B, C, C]
    """Inner products of channels over all positions (Gatys et al. 2016), summed, not averaged."""
    flat = features.flatten(2)
    return flat @ flat.mT


def _choose_net(config: LossConfig, weights: Path) -> tuple[str | None, str]:
    """A backbone whose weights exist, and a note when it is not the configured one.

    Also for a loss of L2 alone, since LPIPS is measured anyway.
    """
    missing = absence(weights, config.net)
    if missing is None:
        return config.net, ""
    for net in _NETS:
        if absence(weights, net) is None:
            return net, f"{missing}; LPIPS and Gram use {net} instead"
    if not (config.lpips or config.gram):
        return None, ""
    left = "L2 and SSIM are left" if config.ssim else "L2 alone is left"
    return None, f"{missing}; the LPIPS and Gram terms are off, {left}"
