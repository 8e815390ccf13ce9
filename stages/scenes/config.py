"""Typed form of the sections of params.yaml about scenes and tuning samples."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from stages.run.errors import UserError
from stages.run.settings.alignment import Alignment
from stages.run.settings.pair_trainings import pair_trainings
from stages.run.settings.params import CHECK, Section, did_you_mean, text_like
from stages.run.settings.ranges import WIDEST, Count, Pixels, Positive, Seed

Keys = tuple[str | int, ...]
# Cameras are numbers in Hi4D: `-S 'scenes.x.target_cameras=[28,64]'` gives integers, a quoted
# entry of params.yaml gives text.
CameraName = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    # A folder of the raw data, and part of file names.
    text_like(
        r"[A-Za-z0-9][A-Za-z0-9_-]*",
        "a camera's name: letters, digits, '_' and '-', a letter or digit first",
    ),
]


class SceneEntry(Section):
    """One entry of the catalogue: the source of a sequence and the roles of its cameras.

    Of the frames that all cameras share, every `frame_step`-th from `first_frame` to `last_frame`
    (inclusive; absent: no limit) is used, or `timestamps` of these, spread evenly (0: all). With
    `timestamps: 0`, a run of neighbouring frames can be chosen. `fps` matches the frames of
    cameras that started at different times, where the data says when. `contact` takes only frames
    in which Hi4D's people touch, or only the others.
    """

    source: Literal["demo", "hi4d", "easyvolcap", "transforms", "mvhumannet", "actorshq"]
    source_cameras: tuple[CameraName, ...] = Field(min_length=1)
    target_cameras: tuple[CameraName, ...] = Field(min_length=1)
    timestamps: Count = 0
    first_frame: Count | None = None
    last_frame: Count | None = None
    frame_step: Positive = 1
    fps: float | None = Field(default=None, ge=0, le=100_000)
    contact: Literal["any", "only", "none"] = "any"
    group: str = ""
    licence: str = ""

    @model_validator(mode="after")
    def _contact_is_known(self) -> Self:
        if self.contact != "any" and self.source != "hi4d":
            raise ValueError(f"contact: {self.contact} is of source hi4d, not of {self.source}")
        return self

    @model_validator(mode="after")
    def _one_role_per_camera(self) -> Self:
        cameras = self.cameras
        repeated = sorted({camera for camera in cameras if cameras.count(camera) > 1})
        if repeated:
            raise ValueError(
                f"each camera has one role; listed more than once: {', '.join(repeated)}"
            )
        if None not in (self.first_frame, self.last_frame) and self.last_frame < self.first_frame:
            raise ValueError("last_frame is before first_frame")
        return self

    @property
    def cameras(self) -> tuple[str, ...]:
        """Source cameras, then target cameras."""
        return self.source_cameras + self.target_cameras

    @property
    def is_brought(self) -> bool:
        """Whether a user brings the raw data, which then is not generated."""
        return self.source != "demo"


SPLITS = ("train", "test")  # DiFix's names: of the tuning, and of its internal evaluation


class ImportEntry(Section):
    """One entry of `imports`: samples of data/raw/<name>/dataset.json, and whom they show.

    Of the file's `split` (auto: train for tuning, test for internal evaluation) those are taken
    whose ids are like `samples`, a pattern with `*`. `root` is removed from the front of paths.
    """

    group: str = Field(min_length=1)
    samples: str = Field(default="*", min_length=1)
    split: Literal["auto", "train", "test"] = "auto"
    root: str = ""

    def part(self, split: str) -> str:
        """The part of the file that is taken for `split` of the study."""
        return split if self.split == "auto" else self.split


class PrepareConfig(Section):
    """How raw frames become a prepared scene."""

    height_px: Pixels = 1280
    undistort: bool = True
    masks: bool = True


class CalibrateConfig(Section):
    """How the poses of source cameras are estimated."""

    method: Literal["given", "perturbed", "sfm", "vggt"] = "perturbed"
    seed: Seed = 0
    rotation_noise_deg: float = Field(default=0.5, ge=0)
    translation_noise: float = Field(default=0.01, ge=0)
    focal_noise: float = Field(default=0.01, ge=0, lt=0.5)
    refine_focal: bool = True
    min_registered: float = Field(default=0.75, ge=0, le=1)
    max_features: Positive = 8192
    peak_threshold: float = Field(default=0.0066, gt=0)
    ratio_test: float = Field(default=0.8, gt=0, le=1)
    matcher: Literal["auto", "cpu", "cuda"] = "auto"
    max_epipolar_error_px: float = Field(default=4.0, gt=0)
    max_reprojection_error_px: float = Field(default=4.0, gt=0)
    min_triangulation_angle_deg: float = Field(default=1.5, ge=0)
    max_rotation_error_deg: float = Field(default=1.0, gt=0)
    max_centre_error: float = Field(default=0.01, gt=0)


class VggtConfig(Section):
    """Weights, device and image size of VGGT, which predicts poses."""

    weights: str = "facebook/VGGT-1B"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    image_px: int = Field(default=518, ge=14, le=WIDEST, multiple_of=14)


# Policies of references: `source:<camera>` names one.
NEAREST, OVERLAP, PREVIOUS, FIXED_SOURCE = "nearest", "overlap", "previous", "source:"
_POLICIES = (NEAREST, OVERLAP, PREVIOUS)


def _policy(value: str) -> str:
    if value in _POLICIES or re.fullmatch(rf"{FIXED_SOURCE}\S+", value):
        return value
    raise ValueError(f"{', '.join(_POLICIES)}, or a source camera such as '{FIXED_SOURCE}4'")


ReferencePolicy = Annotated[str, AfterValidator(_policy)]


# Of a reference that is warped into a view: RGB, and how far the depths agree.
WARPED_CHANNELS = 4


class ReferenceRule(NamedTuple):
    """Which images are references of a view, how many of them, and how a fixer takes them.

    Of `warped` references, warped into the view, there may be fewer than `count`.
    """

    policy: str = NEAREST
    count: int = 1
    warped: bool = False


ONE_NEAREST = ReferenceRule()


class ReferenceConfig(Section):
    """Which images of source cameras are references of a target view."""

    strategy: Literal["same_time", "temporal", "mixed"] = "same_time"
    offset_frames: Positive = 1
    cameras: Count = 1


def reference_errors(
    policy: str, strategy: str, where: str = "difix.reference_from"
) -> Iterator[UserError]:
    """An error where a policy of references and `pairs.reference.strategy` exclude each other."""
    if policy == PREVIOUS and strategy != "same_time":
        yield UserError(
            where,
            f"{PREVIOUS}, with pairs.reference.strategy: {strategy}",
            expected="same_time: views are fixed one after another within a timestamp",
            fix="set one of the two otherwise",
        )


# Source cameras that are left out of one training together; one alone may stand without brackets.
CameraGroup = Annotated[
    tuple[CameraName, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str | int) else value),
    Field(min_length=1),
]


def _sparse(value: int) -> int:
    if value == 1:
        raise ValueError("0, or at least 2: every camera is trained on at 1")
    return value


class DegradationConfig(Section):
    """Gaussians that are trained only so that their renders are degraded (Wu et al. 2025)."""

    sparse: Annotated[Count, AfterValidator(_sparse)] = 0
    cycle: float = Field(default=0.0, ge=0, le=1)


class PairsConfig(Alignment):
    """Which views become tuning samples, and how their inputs are rendered."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    poses: Literal["imperfect", "aligned", "given"] = "imperfect"
    test_poses: Literal["imperfect", "aligned", "given"] = "imperfect"
    cameras: tuple[CameraName, ...] = ()
    leave_out: tuple[CameraGroup, ...] = ()
    degradation: DegradationConfig = DegradationConfig()
    every: Positive = 1
    steps: tuple[Positive, ...] = ()
    max_pairs: Count = 0
    seed: Seed = 0
    reference: ReferenceConfig = ReferenceConfig()
    warped: Count = 0

    @property
    def trainings(self) -> int:
        """How often the Gaussians of a scene are trained for its samples, beside stage `train`."""
        return pair_trainings(self.model_dump())

    @field_validator("leave_out")
    @classmethod
    def _once(cls, groups: tuple[CameraGroup, ...]) -> tuple[CameraGroup, ...]:
        names = [name for group in groups for name in group]
        if len(set(names)) < len(names):
            raise ValueError("each camera once: a sample is named after its camera")
        return groups


def held_out_errors(
    config: PairsConfig, sources: Sequence[str], scene: str, where: Callable[[Keys], str]
) -> Iterator[UserError]:
    """Errors in which of a scene's source cameras are left out: unknown ones, or too many."""
    for index, group in enumerate(config.leave_out):
        at = where(("pairs", "leave_out", index))
        unknown = [name for name in group if name not in sources]
        if unknown:
            yield UserError(
                at,
                ", ".join(map(repr, unknown)),
                expected=f"source cameras of {scene}: {', '.join(sources)}",
                hint=did_you_mean(unknown[0], list(sources)),
                fix=CHECK,
            )
        elif not set(sources) - set(group):
            yield UserError(
                at,
                f"{', '.join(group)} are all source cameras of {scene}",
                expected="at least one that is trained on",
                fix="leave out fewer",
            )
    if config.degradation.sparse >= max(len(sources), 2):
        yield UserError(
            where(("pairs", "degradation", "sparse")),
            f"{config.degradation.sparse} leaves one of {len(sources)} source cameras of {scene}",
            expected="at least two that are trained on",
            fix=f"set it to at most {len(sources) - 1}" if len(sources) > 2 else "set it to 0",
        )


class ManifestConfig(Section):
    """How the samples of all scenes are collected into one data set."""

    prompt: str = Field(default="remove degradation", min_length=1)
    min_psnr: float = Field(default=0.0, ge=0)


SECTIONS = {
    "prepare": PrepareConfig,
    "calibrate": CalibrateConfig,
    "pairs": PairsConfig,
    "manifest": ManifestConfig,
    "vggt": VggtConfig,
}
CATALOGUES = {"scenes": SceneEntry, "imports": ImportEntry}
