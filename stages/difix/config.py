"""Sections `difix:`, `base:` and `tune:` of params.yaml.

Defaults are the values of the published model and of the full-size recipe; params.yaml has those
of the embedded demo.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from stages.run.errors import UserError
from stages.run.methods import DISTILL, TUNED, Method, methods_of
from stages.run.settings.params import Section, no_effect, runtime_field
from stages.run.settings.ranges import WIDEST, Count, Pixels, Positive, Seed, Workers
from stages.samples.worlds.config import WorldsConfig
from stages.scenes.config import NEAREST, ReferencePolicy, ReferenceRule

Precision = Literal["auto", "fp32", "bf16", "fp16"]
SizeName = Literal["tiny", "small", "sd-turbo"]
# Values of `base.source` that are neither a hub id nor a path.
SHIPPED, TRAINED, RANDOM = "shipped", "train", "random"


class FixerConfig(Section):
    """How a fixer is applied."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    reference: Literal["use", "withhold"] = "use"
    reference_from: ReferencePolicy = NEAREST
    references: Positive = 1
    reference_attention: Literal["stored", "mutual", "one_way"] = "stored"
    latent: Literal["mean", "sample"] = "mean"
    seed: Seed = 0
    resolution: Pixels = 0
    multiple: int = Field(default=16, ge=4, le=1024)
    fit: Literal["pad", "resize"] = "pad"
    tile_px: Pixels = 0
    tile_overlap_px: Pixels = 64
    batch_size: int = Field(default=4, ge=1, le=4096)
    mode: Literal["throughput", "latency"] = "throughput"

    @property
    def rule(self) -> ReferenceRule:
        """Which images are references."""
        return ReferenceRule(self.reference_from, self.references)

    @model_validator(mode="after")
    def _tiles_exceed_their_overlap(self) -> "FixerConfig":
        if self.tile_px and self.tile_px < 2 * self.tile_overlap_px:
            raise ValueError(f"tile_px of at least twice tile_overlap_px, {self.tile_overlap_px}")
        if self.tile_px % self.multiple or self.tile_overlap_px % self.multiple:
            raise ValueError(f"tile_px and tile_overlap_px that are multiples of {self.multiple}")
        return self


class LossConfig(Section):
    """Weights of the three terms: mean square error, LPIPS and Gram matrices."""

    l2: float = Field(default=1.0, ge=0)
    lpips: float = Field(default=1.0, ge=0)
    ssim: float = Field(default=0.0, ge=0)
    gram: float = Field(default=0.5, ge=0)
    gram_warmup_steps: Count = 2000
    gram_crop_px: int = Field(default=400, ge=32, le=WIDEST)
    views: Literal["render", "all"] = "render"
    clamp: Literal["straight_through", "hard"] = "straight_through"
    gram_over: Literal["image", "batch"] = "image"
    net: Literal["vgg", "alex", "squeeze"] = "vgg"

    @model_validator(mode="after")
    def _has_a_loss(self) -> "LossConfig":
        if self.l2 == self.lpips == self.ssim == self.gram == 0:
            raise ValueError("a weight above 0 for at least one of l2, lpips, ssim and gram")
        return self


class LoopRuntime(Section):
    """Settings of an optimisation that no result depends on."""

    checkpoint_every: Positive = 500


class LoopConfig(Section):
    """Settings that all optimisations of a fixer share."""

    runtime: LoopRuntime = runtime_field(LoopRuntime())
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    execution: Literal["auto", "eager", "graph"] = "auto"
    steps: Positive = 10000
    batch_size: int = Field(default=1, ge=1, le=4096)
    accumulation: Positive = 1
    lr: float = Field(default=2e-5, gt=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Count = 500
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = 1.0
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    gradient_checkpointing: Literal["none", "decoder", "all"] = "none"
    reference_dropout: float = Field(default=0.1, ge=0, le=1)
    trained: Literal["published", "all"] = "published"
    validate_every: Positive = 500
    losses: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _has_a_step_for_all_views(self) -> "LoopConfig":
        if self.losses.views == "all" and self.execution != "eager":
            raise ValueError("execution: eager where losses.views is all")
        return self


class TuneRuntime(LoopRuntime):
    """The same, and how samples are loaded."""

    loader_workers: int = Field(default=2, ge=0, le=4096)
    cache_mib: Count = 1024


class TuneConfig(LoopConfig):
    """How a fixer is tuned on samples."""

    runtime: TuneRuntime = runtime_field(TuneRuntime())
    init_from: str = ""
    base_decay: float = Field(default=0.0, ge=0)
    rank: int = Field(default=0, ge=0, le=4096)
    processes: Workers = 1
    resolution: Pixels = 320
    multiple: int = Field(default=16, ge=4, le=1024)
    crop_px: Pixels = 0
    flip: bool = True
    missing_reference: Literal["error", "own_render"] = "error"
    keep: Literal["last", "best"] = "last"
    latent: Literal["mean", "sample"] = "mean"
    validation_samples: Count = 0
    samples: Count = 4

    @model_validator(mode="after")
    def _has_a_step_for_low_rank(self) -> "TuneConfig":
        if self.rank and self.execution == "graph":
            raise ValueError(f"rank {self.rank} needs execution auto or eager, not graph")
        return self


class PretrainConfig(LoopConfig):
    """How a fixer is trained from scratch on samples from procedural worlds."""

    worlds: WorldsConfig = WorldsConfig()
    crop_px: int = Field(default=192, ge=32, le=WIDEST)
    fewer: float = Field(default=0.25, ge=0, le=1)
    shuffled: float = Field(default=0.15, ge=0, le=1)
    holes: float = Field(default=0.25, ge=0, le=1)
    exposed: float = Field(default=0.3, ge=0, le=1)
    validation_pairs: Positive = 96


class BaseRuntime(Section):
    """Where downloads of the untuned fixer go, and runtime of its training."""

    download: bool = True
    cache_dir: str = ".work/hub"
    pretrain: LoopRuntime = LoopRuntime()


class BaseConfig(Section):
    """Which fixer is the untuned one."""

    runtime: BaseRuntime = runtime_field(BaseRuntime())
    source: str = Field(default="nvidia/difix_ref", min_length=1)
    size: SizeName = "sd-turbo"
    reference: Literal["stored", "yes", "no"] = "stored"
    components: str = "stabilityai/sd-turbo"
    prompt: str = "remove degradation"
    seed: Seed = 0
    pretrain: PretrainConfig = PretrainConfig()

    @property
    def pretraining(self) -> PretrainConfig:
        """The recipe of `train`, with its runtime."""
        return self.pretrain.model_copy(update={"runtime": self.runtime.pretrain})


SECTIONS = {"difix": FixerConfig, "base": BaseConfig, "tune": TuneConfig}


def inert_keys(config: TuneConfig) -> list[tuple[str, str]]:
    """Keys that have no effect in this run, with the reason."""
    keys, losses = [], config.losses
    if losses.gram and losses.gram_warmup_steps >= config.steps:
        reason = (
            f"its warm-up of {losses.gram_warmup_steps} steps outlasts the run of {config.steps}"
        )
        keys.append(("losses.gram", reason))
    if config.max_grad_norm <= 0:
        keys.append(("max_grad_norm", "0 and below switch clipping off"))
    if config.warmup_steps >= config.steps:
        keys.append(("lr", f"its warm-up of {config.warmup_steps} steps is never over"))
    return keys


def import_errors(
    values: Mapping[str, Any], where: Callable[[tuple[str, ...]], str]
) -> Iterator[UserError]:
    """The error of imports without the warped references that this repository's fixer takes.

    They are rendered by Gaussians. What a fixer from elsewhere takes is known when it is read.

    Args:
        values: the sections that are valid.
        where: gives the place of a key for messages.
    """
    if not {"study", "base", "tune"} <= values.keys():
        return
    study, base, tune = (values[name] for name in ("study", "base", "tune"))
    is_small = base.size == "small" and base.source in (TRAINED, RANDOM)
    takes_warped = (base.source == SHIPPED or is_small) and not tune.init_from
    if takes_warped and study.tuning_imports and tune.missing_reference == "error":
        yield UserError(
            where(("tune", "missing_reference")),
            f"error, but samples of {', '.join(study.tuning_imports)} have no references warped "
            f"into their views, which the fixer of base.source: {base.source} takes",
            expected="own_render, by which the fixer is tuned on them without references",
            fix="set tune.missing_reference: own_render, or base.source to a fixer such as "
            "nvidia/difix_ref",
        )


def notes(values: Mapping[str, Any], where: Callable[[tuple[str, ...]], str]) -> Iterator[str]:
    """A line for each section that no method uses, and on keys of `tune` where one does.

    These are keys without effect, and two scales of images. `values` are the sections of params.
    """
    methods = _evaluated(values)
    for section, uses, reason in (
        ("tune", methods_of(TUNED, methods), "has the tuned fixer"),
        ("difix", [one for one in methods if Method.parse(one).form], "has a fixer"),
        ("distill", [one for one in methods if Method.parse(one).form == DISTILL], "distils"),
    ):
        if not uses:
            lists = "study.methods, capture_study and static"
            yield no_effect(where((section,)), f"no method of {lists} {reason}", " on evaluations")
    if not methods_of(TUNED, methods):
        return
    for key, reason in inert_keys(values["tune"]):
        yield no_effect(where(("tune", *key.split("."))), reason)
    tuned, applied = values["tune"].resolution, values["difix"].resolution
    if tuned != applied:
        resizes = f"difix.resolution={tuned}, which resizes and loses detail"
        ways = resizes if tuned else f"tune.resolution={applied}"
        if tuned and not applied:
            ways = f"tune.resolution=0 and tune.crop_px={tuned}, which crops, or {resizes}"
        yield (
            f"note: {where(('tune', 'resolution'))}: the fixer is tuned on {_size(tuned)} and "
            f"applied to {_size(applied)} (difix.resolution: {applied}), another scale of the same "
            f"faults; for one scale set {ways}"
        )


def _evaluated(values: Mapping[str, Any]) -> list[str]:
    """Methods by which scenes, captures and static scenes are evaluated."""
    captures, static = values["capture_study"], values["static"]
    fixed = [captures] if captures.evaluated else []
    fixed += [static] if static.scenes else []
    pairs = [pair for one in fixed for pair in itertools.product(one.fixers, one.methods)]
    return [*values["study"].methods, *map("-".join, pairs)]


def _size(resolution: int) -> str:
    return f"images of {resolution} px" if resolution else "images of their own size"
