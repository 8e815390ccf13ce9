"""Typed form of the `capture*:` sections of params.yaml, and checks of what they refer to."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from stages.run.errors import UserError
from stages.run.methods import FixerName, FormName
from stages.run.settings.alignment import OptionalAlignment
from stages.run.settings.names import Names
from stages.run.settings.params import Section, did_you_mean, text_like
from stages.run.settings.ranges import Count, Pixels, Seed

MatchString = Annotated[str, text_like(r"[^/\\]*", "a word in names of images, without / and \\")]


class CaptureStudy(Section):
    """Which captures are trained and evaluated; dvc.yaml fans out over these lists."""

    captures: Names = ()
    variants: tuple[Literal["combined", "filtered"], ...] = ("combined", "filtered")
    evaluated: Names = ()
    fixers: tuple[FixerName, ...] = ()
    methods: tuple[FormName, ...] = Field(default=("post",), min_length=1)


class CaptureEntry(Section):
    """One capture: images in data/raw/<name>, with or without a COLMAP model."""

    match_string: MatchString = ""


# COLMAP's, whose distortion can be undone (scenes/lenses).
CameraModel = Literal[
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "OPENCV_FISHEYE",
    "THIN_PRISM_FISHEYE",
]


class CaptureCalibrateConfig(Section):
    """How the poses of images are estimated."""

    method: Literal["auto", "given", "sfm", "vggt", "ba"] = "auto"
    seed: Seed = 0
    threads: int = Field(default=1, ge=-1, le=4096)
    camera_model: CameraModel = "SIMPLE_RADIAL"
    lenses: Literal["auto", "one"] = "auto"
    refine_lenses: bool = True
    max_image_px: Pixels = 0
    matcher: Literal["auto", "cpu", "cuda"] = "auto"
    attempts: int = Field(default=2, ge=1, le=3)
    video_fps: float = Field(default=2.0, gt=0, le=1000)
    min_registered: float = Field(default=0.75, ge=0, le=1)
    pose_tolerance: float = Field(default=2.0, ge=1)


class CaptureTrainConfig(OptionalAlignment):
    """Which views of a capture are held out, and how these are measured."""

    test_every: Count = 8


class ForeignConfig(Section):
    """What the files of another program's result may not say."""

    frame: Literal["auto", "world", "gsplat", "gsplat_unflipped"] = "auto"
    antialiased: Literal["auto", "yes", "no"] = "auto"
    test_every: Literal["auto"] | Count = "auto"


class CaptureEvaluateConfig(OptionalAlignment):
    """How a trained capture is measured on another dataset."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    match_string: MatchString = ""
    nearest: Count = 0
    skip_trained: bool = False
    covisible: bool = False
    frame: Literal["auto", "shared", "images"] = "auto"
    foreign: ForeignConfig = ForeignConfig()


def inert_keys(
    config: CaptureTrainConfig | CaptureEvaluateConfig, overridden: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Keys of the command line without effect, and why."""
    held_out = not isinstance(config, CaptureTrainConfig) or config.test_every > 1
    if "align_lr" in overridden and config.align_steps == 0:
        yield "align_lr", "align_steps is 0"
    elif not held_out:
        yield from (
            (key, "no view is held out") for key in ("align_steps", "align_lr") if key in overridden
        )


def inert_calibration_keys(
    method: str, overridden: Collection[str], is_video: bool = False
) -> Iterator[tuple[str, str]]:
    """Keys of `capture_calibrate` on the command line that have no effect, and why."""
    if "video_fps" in overridden and not is_video:
        yield "video_fps", "the source is no video"
    overridden = set(overridden) - {"video_fps"}
    used = {"given": {"method", "min_registered"}}.get(method, set(overridden))
    used -= {"pose_tolerance"} if method == "sfm" else set()
    for key in sorted(set(overridden) - used):
        yield key, f"method {method} does not use it"


SECTIONS = {
    "capture_study": CaptureStudy,
    "capture_calibrate": CaptureCalibrateConfig,
    "capture_train": CaptureTrainConfig,
    "capture_evaluate": CaptureEvaluateConfig,
}


def capture_errors(
    values: Mapping[str, Any],
    names: Callable[[str], list[str]],
    where: Callable[[tuple[Any, ...]], str],
    raw_folder: Callable[[str], Path],
    eval_folder: Callable[[str], Path],
) -> Iterator[UserError]:
    """Errors for captures of the study without a catalogue entry or without images.

    Args:
        values: The sections and entries that are valid.
        names: Gives the names of a catalogue's entries, valid or not.
        where: Gives the place of a key for messages.
        raw_folder: Gives the folder of a capture's images.
        eval_folder: Gives the folder of its evaluation set.
    """
    if not {"capture_study", "captures", "demo_capture"} <= values.keys():
        return
    study, catalogue = values["capture_study"], values["captures"]
    embedded = values["demo_capture"].captures
    for index, name in enumerate(study.captures):
        at = where(("capture_study", "captures", index))
        known = names("captures")
        if name not in known:
            yield UserError(
                at,
                f"{name!r} is not in `captures`",
                expected=f"one of {', '.join(known)}" if known else "an entry of `captures:`",
                hint=did_you_mean(name, known),
            )
        elif name not in embedded and not raw_folder(name).is_dir():
            yield UserError(
                at,
                f"no folder {raw_folder(name)}",
                expected="images there",
                fix=f"dvc import-url FOLDER {raw_folder(name)}",
            )
        elif (
            "filtered" in study.variants and name in catalogue and not catalogue[name].match_string
        ):
            yield UserError(
                where(("captures", name, "match_string")),
                "empty",
                expected="the word that image names of variant filtered contain",
            )
    for index, name in enumerate(study.evaluated):
        at = where(("capture_study", "evaluated", index))
        if name not in study.captures:
            yield UserError(
                at, f"{name!r} is not trained", expected="one of capture_study.captures"
            )
        elif name not in embedded and not eval_folder(name).is_dir():
            yield UserError(
                at,
                f"no folder {eval_folder(name)}",
                expected="a COLMAP dataset there",
                fix=f"dvc import-url FOLDER {eval_folder(name)}",
            )
