"""Typed form of `report:` and `show:` in params.yaml."""

from typing import Literal

from pydantic import Field

from stages.run.settings.params import Section
from stages.run.settings.ranges import WIDEST, Positive


class ReportConfig(Section):
    """What the report shows, and how large it may become."""

    max_side_px: int = Field(default=512, ge=32, le=WIDEST)
    quality: int = Field(default=88, ge=1, le=100)
    error_full_scale: float = Field(default=0.25, gt=0, le=1)
    max_mb: float = Field(default=15.0, gt=0)


class VideoConfig(Section):
    """Films of the Gaussians along the source cameras."""

    frames: int = Field(default=60, ge=0, le=100_000)
    fps: int = Field(default=20, ge=1, le=240)
    max_side_px: int = Field(default=512, ge=16, le=WIDEST)


class ShowConfig(Section):
    """The viewer, the files for other viewers and the films of a scene."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    max_gaussians: Positive = 60_000
    exports: tuple[Literal["ply", "spz"], ...] = ()
    video: VideoConfig = VideoConfig()
