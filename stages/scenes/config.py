"""Typed form of `scenes:`, `prepare:` and `calibrate:` in params.yaml."""

import re
from typing import Literal

from pydantic import Field

from stages.run.params import Section

_HI4D_ID = re.compile(r"hi4d_(pair\d{2})_([a-z]+)")


class SceneEntry(Section):
    """One entry of the catalogue: where a sequence comes from and what its cameras are for."""

    source: Literal["demo", "hi4d"]
    source_cameras: tuple[str, ...]
    target_cameras: tuple[str, ...]
    timestamps: int = Field(default=0, ge=0)
    group: str = ""
    licence: str = ""

    def group_of(self, scene: str) -> str:
        """The people of a scene: `group`, or the pair in a name such as hi4d_pair15_fight."""
        return self.group or group_in_name(scene)


class PrepareConfig(Section):
    """How raw frames become a prepared scene."""

    height_px: int = Field(default=1280, ge=0)
    undistort: bool = True
    masks: bool = True


class CalibrateConfig(Section):
    """How source cameras are calibrated."""

    method: Literal["given", "perturbed", "sfm"] = "perturbed"
    seed: int = 0
    rotation_noise_deg: float = Field(default=0.5, ge=0)
    translation_noise: float = Field(default=0.01, ge=0)
    focal_noise: float = Field(default=0.01, ge=0, lt=0.5)
    refine_focal: bool = True
    min_registered: float = Field(default=0.75, ge=0, le=1)
    max_features: int = Field(default=8192, ge=1)
    peak_threshold: float = Field(default=0.0066, gt=0)
    ratio_test: float = Field(default=0.8, gt=0, le=1)
    max_epipolar_error_px: float = Field(default=4.0, gt=0)
    max_reprojection_error_px: float = Field(default=4.0, gt=0)
    min_triangulation_angle_deg: float = Field(default=1.5, ge=0)


def group_in_name(scene: str) -> str:
    """The pair in a Hi4D scene name; any other name is a group of its own.

    >>> group_in_name("hi4d_pair15_fight"), group_in_name("pose2sim_4cam")
    ('pair15', 'pose2sim_4cam')
    """
    match = _HI4D_ID.fullmatch(scene)
    return match[1] if match else scene
