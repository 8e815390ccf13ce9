"""Covisible pixels of held-out views: those visible to enough of the training views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.process.gpus import expect_gpu
from stages.scenes.cameras import Camera
from stages.scenes.static.config import StaticConfig
from stages.splat.gaussians import Gaussians
from stages.splat.views.visibility import depth_view, visible_counts


@dataclass(frozen=True)
class CovisibleRule:
    """When a pixel counts as covisible."""

    min_views: int
    min_share: float
    depth_tolerance: float  # share of the depth

    def needed(self, views: int) -> int:
        """The number of training views, of `views`, that a covisible pixel must be visible to.

        >>> rule = CovisibleRule(min_views=1, min_share=0.05, depth_tolerance=0.05)
        >>> rule.needed(1), rule.needed(3), rule.needed(81)
        (1, 1, 5)
        """
        return min(views, max(self.min_views, math.ceil(self.min_share * views)))

    def protocol(self) -> str:
        """How masks are made and applied, as a part of the protocol of comparable numbers."""
        return (
            f"covisible by depth within {self.depth_tolerance:.0%}, in {self.min_share:.0%} of the "
            f"views and at least {self.min_views}, DyCheck means"
        )


@dataclass(frozen=True)
class Covisibility:
    """How masks are computed; the chunks, as of `covisible`, change none."""

    rule: CovisibleRule
    chunk: int
    micro_chunk: int


def rule_of(static: StaticConfig) -> CovisibleRule:
    """The rule of section `static`."""
    return CovisibleRule(static.covi_min_views, static.covi_min_share, static.covi_depth_tolerance)


def covisibility_of(static: StaticConfig) -> Covisibility:
    """What section `static` says, for evaluation sets of captures too."""
    return Covisibility(rule_of(static), static.runtime.covi_chunk, static.runtime.covi_micro_chunk)


def backend_of(device: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`. Raises UserError when there is no GPU."""
    is_available = torch.cuda.is_available()
    if device == "cuda" and not is_available:
        raise UserError("static.covi_device", "cuda, but torch sees no GPU", fix="set it to cpu")
    if device == "auto" and not is_available:
        expect_gpu("static.covi_device")
    return "cuda" if is_available and device != "cpu" else "cpu"


def covisible(
    gaussians: Gaussians,
    held_out: Sequence[Camera],
    training: Sequence[Camera],
    rule: CovisibleRule,
    backend: str,
    chunk: int,
    micro_chunk: int,
) -> list[Tensor]:
    """Masks [H, W] of the covisible pixels of held-out views.

    Args:
        gaussians: trained on the training views.
        held_out: cameras of the held-out views.
        training: cameras of the training views.
        rule: when a pixel is covisible.
        backend: cuda or cpu.
        chunk: number of training views whose depths are in memory at once.
        micro_chunk: number of these that are compared in one operation; neither changes a mask.
    """
    targets = [depth_view(gaussians, camera, backend) for camera in held_out]
    counts = [torch.zeros_like(target.depth, dtype=torch.int32) for target in targets]
    for start in range(0, len(training), chunk):
        views = [depth_view(gaussians, c, backend) for c in training[start : start + chunk]]
        for target, count in zip(targets, counts, strict=True):
            for first in range(0, len(views), micro_chunk):
                count += visible_counts(
                    target, views[first : first + micro_chunk], rule.depth_tolerance
                )
    needed = rule.needed(len(training))
    return [(count >= needed) & (t.depth > 0) for t, count in zip(targets, counts, strict=True)]
