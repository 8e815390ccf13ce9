"""Typed form of `demo:` in params.yaml."""

from pydantic import Field

from stages.run.names import Names
from stages.run.params import Section


class DemoConfig(Section):
    """What the embedded sequences look like and how finely they are traced."""

    scenes: Names = ()
    seed: int = 0
    frames: int = Field(default=2, ge=1)
    first_frame: int = Field(default=21, ge=0)
    frame_step: int = Field(default=12, ge=1)
    width_px: int = Field(default=192, ge=16)
    height_px: int = Field(default=256, ge=16)
    samples: int = Field(default=2, ge=1)


class DemoCaptureConfig(Section):
    """What the embedded capture looks like and how finely it is traced."""

    captures: Names = ()
    seed: int = 0
    photographs: int = Field(default=10, ge=2)
    eval_photographs: int = Field(default=6, ge=1)
    width_px: int = Field(default=256, ge=32)
    height_px: int = Field(default=192, ge=32)
    samples: int = Field(default=2, ge=1)
    distortion: tuple[float, float, float, float] = (-0.08, 0.01, 0.001, -0.001)
