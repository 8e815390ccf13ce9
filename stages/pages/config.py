"""Typed form of `report:` and `show:` in params.yaml."""

from typing import Literal

from pydantic import Field

from stages.run.settings.params import Section
from stages.run.settings.ranges import WIDEST, Positive


class ReportConfig(Section):
    """Images of the report, and its largest size."""

    max_side_px: int = Field(default=512, ge=32, le=WIDEST)
    quality: int = Field(default=88, ge=1, le=100)
    max_views: int = Field(default=6, ge=1, le=1000)
    error_full_scale: float = Field(default=0.25, gt=0, le=1)
    max_mb: float = Field(default=15.0, gt=0)


class VideoConfig(Section):
    """Videos of the Gaussians along the source cameras."""

    frames: int = Field(default=60, ge=0, le=100_000)
    fps: int = Field(default=20, ge=1, le=240)
    max_side_px: int = Field(default=512, ge=16, le=WIDEST)


class ShowConfig(Section):
    """The viewer of a scene, its files for other viewers, and its videos."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    max_gaussians: Positive = 60_000
    truth_side_px: int = Field(default=512, ge=0, le=WIDEST)
    exports: tuple[Literal["ply", "spz", "ply_sequence", "rrd"], ...] = ()
    video: VideoConfig = VideoConfig()


SECTIONS = {"report": ReportConfig, "show": ShowConfig}
