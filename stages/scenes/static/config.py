"""Typed models of `static_demo:` and `static:` in params.yaml."""

from typing import Literal, get_args

from pydantic import Field

from stages.run.methods import FixerName, FormName
from stages.run.settings.names import Names
from stages.run.settings.params import PathText, Section, runtime_field
from stages.run.settings.ranges import Count, Pixels, Positive, Seed

CameraKind = Literal["monocular", "iphone", "stereo", "lightfield"]
CAMERAS: tuple[str, ...] = get_args(CameraKind)


class StaticRuntime(Section):
    """Steps to repeat or skip by hand, and limits of memory; results do not depend on them."""

    vggt_cache: PathText = ""
    force: bool = False
    copy_mode: Literal["copy", "hardlink", "symlink"] = "copy"
    skip_train: bool = False
    skip_eval: bool = False
    rebuild_covisible: bool = False
    covi_chunk: Positive = 32
    covi_micro_chunk: Positive = 8


class StaticConfig(Section):
    """How a static scene is prepared, trained on the images of one kind of camera and evaluated."""

    runtime: StaticRuntime = runtime_field(StaticRuntime())
    scenes: Names = ()
    cameras: tuple[CameraKind, ...] = ("monocular", "iphone", "stereo", "lightfield")
    max_px: Pixels = 0
    lf_inner: int = Field(default=2, ge=0, le=99)
    lf_downscale: Positive = 1
    lf_calib: PathText = ""
    lf_to_colmap: PathText = ""
    vggt_stage: Literal["both", "vggt", "ba"] = "both"
    skip_vggt: bool = False
    lens_model: Literal["pinhole", "radial"] = "radial"
    focal_guess: float = Field(default=1.0, gt=0)
    max_features: Positive = 8192
    peak_threshold: float = Field(default=0.0066, gt=0)
    ratio_test: float = Field(default=0.8, gt=0, le=1)
    max_reprojection_error_px: float = Field(default=4.0, gt=0)
    min_triangulation_angle_deg: float = Field(default=1.5, ge=0)
    min_registered: float = Field(default=1.0, ge=0, le=1)
    seed: Seed = 0
    train_test_every: Count = 1
    eval_test_every: Positive = 1
    nearest_eval: Count = 0
    covi_device: Literal["auto", "cpu", "cuda"] = "auto"
    covi_min_views: Positive = 1
    covi_min_share: float = Field(default=0.05, ge=0, le=1)
    covi_depth_tolerance: float = Field(default=0.05, gt=0)
    fixers: tuple[FixerName, ...] = ()
    methods: tuple[FormName, ...] = Field(default=("post",), min_length=1)


# The keys of `static:` and `runtime.static:` that each command reads; capture_evaluate's are for
# its covisible pixels.
READ_BY = {
    "capture_evaluate": (
        "runtime.covi_chunk",
        "runtime.covi_micro_chunk",
        "covi_min_views",
        "covi_min_share",
        "covi_depth_tolerance",
    ),
    "static_prepare": (
        "cameras",
        "max_px",
        "lf_inner",
        "lf_downscale",
        "lf_calib",
        "lf_to_colmap",
        "vggt_stage",
        "runtime.vggt_cache",
        "skip_vggt",
        "runtime.force",
        "runtime.copy_mode",
        "lens_model",
        "focal_guess",
        "max_features",
        "peak_threshold",
        "ratio_test",
        "max_reprojection_error_px",
        "min_triangulation_angle_deg",
        "min_registered",
        "seed",
    ),
    "static_train": ("train_test_every", "runtime.skip_train"),
    "static_evaluate": (
        "eval_test_every",
        "nearest_eval",
        "runtime.skip_eval",
        "runtime.rebuild_covisible",
        "runtime.covi_chunk",
        "runtime.covi_micro_chunk",
        "covi_device",
        "covi_min_views",
        "covi_min_share",
        "covi_depth_tolerance",
    ),
    "static_fix": ("cameras", "methods"),
}


class StaticDemoConfig(Section):
    """Which embedded static scenes are generated, and the sizes of their images."""

    scenes: Names = ()
    seed: Seed = 0
    width_px: int = Field(default=256, ge=16, le=8192)
    height_px: int = Field(default=192, ge=16, le=8192)
    lightfield_side: int = Field(default=7, ge=3, le=99)
    eval_frames: int = Field(default=8, ge=2, le=10_000)
    samples: int = Field(default=2, ge=1, le=16)
