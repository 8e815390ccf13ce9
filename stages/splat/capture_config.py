"""Typed form of `capture_train:` and `capture_evaluate:` in params.yaml."""

from typing import Literal

from pydantic import Field

from stages.run.params import Section


class CaptureTrainConfig(Section):
    """Which views of a capture are held out, and how these are measured."""

    test_every: int = Field(default=8, ge=0)
    align_steps: int = Field(default=60, ge=0)
    align_lr: float = Field(default=2e-3, gt=0)


class CaptureEvaluateConfig(Section):
    """How a trained capture is measured on another dataset."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    nearest: int = Field(default=0, ge=0)
    frame: Literal["auto", "shared", "images"] = "auto"
    align_steps: int = Field(default=60, ge=0)
    align_lr: float = Field(default=2e-3, gt=0)
