"""Typed form of `demo:` and `demo_capture:` in params.yaml."""

from pydantic import Field

from stages.run.settings.names import Names
from stages.run.settings.params import Section
from stages.run.settings.ranges import Count, Positive, Seed


class DemoConfig(Section):
    """Content and ray-tracing quality of the embedded sequences."""

    scenes: Names = ()
    seed: Seed = 0
    frames: int = Field(default=2, ge=1, le=100_000)
    first_frame: Count = 21
    frame_step: Positive = 12
    width_px: int = Field(default=192, ge=16, le=8192)
    height_px: int = Field(default=256, ge=16, le=8192)
    samples: int = Field(default=2, ge=1, le=16)


class DemoCaptureConfig(Section):
    """Content and ray-tracing quality of the embedded capture."""

    captures: Names = ()
    seed: Seed = 0
    photographs: int = Field(default=10, ge=2, le=10_000)
    eval_photographs: int = Field(default=6, ge=1, le=10_000)
    width_px: int = Field(default=256, ge=32, le=8192)
    height_px: int = Field(default=192, ge=32, le=8192)
    samples: int = Field(default=2, ge=1, le=16)
    distortion: tuple[float, float, float, float] = (-0.08, 0.01, 0.001, -0.001)


SECTIONS = {"demo": DemoConfig, "demo_capture": DemoCaptureConfig}
