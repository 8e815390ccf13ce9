"""Typed form of `capture_study:`, `captures:` and `capture_calibrate:` in params.yaml."""

from typing import Literal

from pydantic import Field

from stages.run.params import Section


class CaptureStudy(Section):
    """Which captures are trained and measured; dvc.yaml fans out over these lists."""

    captures: tuple[str, ...] = ()
    variants: tuple[Literal["combined", "filtered"], ...] = ("combined", "filtered")
    evaluated: tuple[str, ...] = ()


class CaptureEntry(Section):
    """One capture: photographs in data/raw/<name>, with or without a COLMAP model."""

    match_string: str = Field(default="", pattern=r"^[^/\\]*$")
    licence: str = ""


class CaptureCalibrateConfig(Section):
    """How photographs get their poses."""

    method: Literal["auto", "given", "sfm", "vggt", "ba"] = "auto"
    seed: int = 0
    threads: int = Field(default=1, ge=-1)
    camera_model: str = "SIMPLE_RADIAL"
    lenses: Literal["auto", "one"] = "auto"
    max_image_px: int = Field(default=0, ge=0)
    attempts: int = Field(default=3, ge=1, le=3)
    min_registered: float = Field(default=0.75, ge=0, le=1)
    pose_tolerance: float = Field(default=2.0, ge=1)
