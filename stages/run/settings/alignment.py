"""Params of the alignment of camera poses to images before measuring."""

from pydantic import Field

from stages.run.settings.params import Section
from stages.run.settings.ranges import Count, Positive

_STEPS = 60


class Alignment(Section):
    """Steps and learning rate of Adam on one pose, against frozen Gaussians."""

    align_steps: Positive = _STEPS
    align_lr: float = Field(default=2e-3, gt=0)


class OptionalAlignment(Alignment):
    """As `Alignment`, but 0 steps are allowed: poses stay as they are."""

    align_steps: Count = _STEPS
