"""Typed models of `train:` and `distill:` in params.yaml; defaults are the full-size recipe."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from stages.run.process.gpus import visible_gpus
from stages.run.settings.params import Section, dotted, no_effect, runtime_field
from stages.run.settings.ranges import MOST, Count, Positive, Seed, Workers

# One channel of an RGB colour.
Channel = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]

# Gaussians that training starts from: the size of each is the distance to three others.
LEAST_GAUSSIANS = 4


def _sized(count: int) -> int:
    if count < LEAST_GAUSSIANS:
        raise ValueError(f"at least {LEAST_GAUSSIANS}: sizes are distances to three neighbours")
    return count


Gaussians = Annotated[Positive, AfterValidator(_sized)]

# Values with which a key is off; an entry that ignores a key that is on reports it.
_OFF = {"match_string": ("",), "test_every": (0, 1), "warm_start": (False,)}
_WARM = ("warm_start", "warm_every", "warm_share", "warm_tolerance_db")
_WORKERS = "runtime.workers"
_ALONE = dict.fromkeys((*_WARM, _WORKERS), "only timestamps of a scene start from each other")
# Keys that each training entry ignores, and why.
_UNREAD = {
    "capture_train": _ALONE
    | {
        _WORKERS: "a capture is trained by itself",
        "match_string": "captures have their own: captures.<name>.match_string, or MATCH_STRING",
        "test_every": "captures have their own: capture_train.test_every",
    },
    "static_train": _ALONE
    | {
        _WORKERS: "one kind of camera is trained by itself",
        "test_every": "static scenes have their own: static.train_test_every",
    },
    # It trains reconstructions only for samples that hold out a camera or use true poses.
    "pairs": _ALONE | {_WORKERS: "reconstructions of pairs are trained one after the other"},
}
_LEAST_BETWEEN_HALVINGS = 50  # steps; from here on it was measured (benchmarks/README.md)


class StrategyConfig(Section):
    """When Gaussians are duplicated, split, pruned and reset: names and meaning are gsplat's."""

    kind: Literal["default", "mcmc"] = "default"
    prune_opa: float = Field(default=0.006, ge=0, le=1)
    grow_grad2d: float = Field(default=0.00035, gt=0)
    grow_scale3d: float = Field(default=0.012, gt=0)
    grow_scale2d: float = Field(default=0.05, gt=0)
    prune_scale3d: float = Field(default=0.22, gt=0)
    prune_scale2d: float = Field(default=0.12, gt=0)
    refine_scale2d_stop_iter: Count = 26000
    refine_start_iter: Count = 500
    refine_stop_iter: Count = 26000
    refine_every: Positive = 100
    reset_every: Positive = 100000
    halve_every: Count = 0
    pause_refine_after_reset: Count = 0
    absgrad: bool = False
    revised_opacity: bool = False


class TrainRuntime(Section):
    """Settings of splat training that no result depends on."""

    workers: Literal["auto"] | Workers = "auto"
    checkpoint_every: Positive = 1000


class TrainConfig(Section):
    """All hyperparameters of splat training, with the names of gsplat and the full-size recipe."""

    runtime: TrainRuntime = runtime_field(TrainRuntime())
    backend: Literal["auto", "cpu", "cuda"] = "auto"
    execution: Literal["graph", "eager"] = "graph"
    rasteriser: Literal["own", "gsplat"] = "own"
    seed: Seed = 42
    warm_start: bool = False
    warm_every: int = Field(default=3, ge=2, le=MOST)
    warm_share: float = Field(default=0.15, gt=0, le=1)
    warm_tolerance_db: float = Field(default=1.0, ge=0)
    match_string: str = ""
    test_every: Count = 0
    data_factor: int = Field(default=1, ge=1, le=1024)
    max_steps: Positive = 30000
    steps_scaler: float = Field(default=1.0, gt=0, le=1000)
    eval_steps: tuple[Positive, ...] = (3000, 7000, 30000)
    ply_steps: tuple[Positive, ...] = (3000, 7000, 30000)
    save_steps: tuple[Positive, ...] = (7000, 30000)
    save_ply: bool = True
    max_gaussians: Gaussians = 1_000_000
    init_type: Literal["auto", "sfm", "random", "both"] = "auto"
    init_num_pts: Gaussians = 100_000
    init_extent: float = Field(default=3.0, gt=0)
    init_opa: float = Field(default=0.1, gt=0, lt=1)
    init_scale: float = Field(default=1.0, gt=0)
    global_scale: float = Field(default=1.0, gt=0)
    near_plane: float = Field(default=0.01, gt=0)
    far_plane: float = Field(default=1e10, gt=0)
    background: tuple[Channel, Channel, Channel] = (0.0, 0.0, 0.0)
    random_bkgd: bool = False
    antialiased: bool = True
    sh_degree: int = Field(default=3, ge=0, le=3)
    sh_degree_interval: Positive = 1000
    ssim_lambda: float = Field(default=0.2, ge=0, le=1)
    opacity_reg: float = Field(default=0.0, ge=0)
    scale_reg: float = Field(default=0.0005, ge=0)
    means_lr: float = Field(default=0.00012, gt=0)
    scales_lr: float = Field(default=0.003, gt=0)
    opacities_lr: float = Field(default=0.05, gt=0)
    quats_lr: float = Field(default=0.001, gt=0)
    sh0_lr: float = Field(default=0.0025, gt=0)
    shN_lr: float = Field(default=0.000125, gt=0)  # noqa: N815
    pose_opt: bool = True
    pose_opt_lr: Literal["auto"] | Rate = 1e-5
    pose_opt_reg: Literal["auto"] | Weight = 1e-6
    color_opt: bool = False
    color_opt_lr: Rate = 0.001
    color_opt_reg: Weight = 0.1
    masks: bool = False
    strategy: StrategyConfig = StrategyConfig()

    @model_validator(mode="after")
    def _planes_in_order(self) -> "TrainConfig":
        if self.near_plane >= self.far_plane:
            raise ValueError(f"near_plane {self.near_plane} must lie before {self.far_plane}")
        return self

    @property
    def steps(self) -> int:
        """Optimisation steps after scaling."""
        return self.scaled(self.max_steps)

    @property
    def halves(self) -> bool:
        """Whether opacities are halved, and moments forgotten, at any step."""
        strategy = self.strategy
        if strategy.kind != "default" or strategy.halve_every == 0:
            return False
        end = min(self.scaled(strategy.refine_stop_iter), self.steps)
        return self.scaled(strategy.halve_every) < end

    def scaled(self, steps: int) -> int:
        """A number of steps times `steps_scaler`, at least 1."""
        return max(1, int(steps * self.steps_scaler))

    def following(self) -> "TrainConfig":
        """The recipe of a timestamp that starts from its neighbour's Gaussians.

        They may move as far in `warm_share` of the steps as others in all; none is added or
        removed.
        """
        strategy = self.strategy.model_copy(update={"refine_stop_iter": 0})
        changes = {
            "steps_scaler": self.steps_scaler * self.warm_share,
            "means_lr": self.means_lr / self.warm_share,
            "ply_steps": (),
            "save_steps": (),
            "strategy": strategy,
        }
        return self.model_copy(update=changes)

    def fingerprint(self, backend: str) -> str:
        """Text that is equal for two recipes when a run of one can resume with the other.

        `backend` is the one that `auto` chose.
        """
        return self.model_copy(update={"backend": backend}).recipe()

    def name_in_files(self, backend: str) -> str:
        """Text of the recipe whose hash is written to files of Gaussians.

        It contains two former keys, now in `runtime`, as 1, and no later keys that are off, so that
        hashes stay the same.
        """
        same = self.model_copy(update={"backend": backend})
        later = {"color_opt", "color_opt_lr", "color_opt_reg"} if not self.color_opt else set()
        later |= {"warm_tolerance_db", "execution", "rasteriser"}
        off: set[str] = set() if self.strategy.halve_every else {"halve_every"}
        text = same.model_dump_json(exclude=dict.fromkeys(later, True) | {"strategy": off})
        for key, next_one in (("workers", "warm_start"), ("checkpoint_every", "max_gaussians")):
            text = text.replace(f'"{next_one}":', f'"{key}":1,"{next_one}":', 1)
        return text


class DistillConfig(Section):
    """How fixed views are trained into Gaussians; class defaults are Difix3D's proportions."""

    seed: Seed = 0
    rounds: Positive = 20
    steps: Positive = 1500
    novel_share: float = Field(default=0.3, gt=0, lt=1)
    novel_weight: float = Field(default=0.2, gt=0)
    min_alpha: float = Field(default=0.5, ge=0, lt=1)
    where: Literal["uncovered", "covered", "all"] = "uncovered"
    keep: Literal["last", "all"] = "last"
    shifted_grids: int = Field(default=1, ge=1, le=64)
    means_lr_scale: float = Field(default=0.1, gt=0)
    shape_lr_scale: float = Field(default=0.2, gt=0)
    sh_lr_scale: float = Field(default=0.02, gt=0)
    post: bool = True


def inert(config: TrainConfig, entry: str = "train") -> list[tuple[str, str]]:
    """Parameters that cannot act with these values, with the reason; `entry` trains."""
    strategy = _inert_mcmc if config.strategy.kind == "mcmc" else _inert_default
    reasons = [(f"strategy.{key}", reason) for key, reason in strategy(config)]
    reasons += [*_inert_steps(config), *_inert_switches(config)]
    return [*reasons, *unread(config, entry)]


def unread(
    config: TrainConfig, entry: str, overridden: Iterable[str] = ()
) -> Iterator[tuple[str, str]]:
    """Keys that `entry` ignores although they are on or `overridden`, with the reason."""
    for key, reason in _UNREAD.get(entry, {}).items():
        is_on = key in _OFF and getattr(config, key) not in _OFF[key]
        if is_on or key in overridden:
            yield key, reason


def inert_in(
    config: TrainConfig, captures: Sequence[str], static: Sequence[str], masks: bool
) -> Iterator[tuple[str, str, str]]:
    """Parameters that cannot act in a study: the place (empty: everywhere), the key, the reason.

    Other keys with the same reason are named after the place.

    Args:
        config: section `train`.
        captures: names of captures that the study trains.
        static: names of static scenes that the study trains.
        masks: whether scenes are prepared with masks.
    """
    yield from _by_reason(inert(config))
    if config.masks and not masks:
        yield " on scenes", "masks", "prepare.masks is false"
    for entry, items in (("capture_train", captures), ("static_train", static)):
        if items:
            for others, key, reason in _by_reason(unread(config, entry)):
                yield f" in {entry}{others}", key, reason


def study_notes(
    values: Mapping[str, Any], where: Callable[[tuple[str, ...]], str]
) -> Iterator[str]:
    """A line for each of `inert_in` and of `doubtful`, and for what needs a GPU where none is.

    `values` are the sections of params.
    """
    others = values["capture_study"].captures, values["static"].scenes, values["prepare"].masks
    for place, key, reason in inert_in(values["train"], *others):
        yield no_effect(where(("train", *key.split("."))), reason, place)
    for key, reason in doubtful(values["train"]):
        yield f"note: {where(('train', *key.split('.')))}: {reason}"
    needs = {("train", "backend"): "cuda", ("train", "strategy", "kind"): "mcmc"}
    train = values["train"]
    for keys, value in () if visible_gpus() else needs.items():
        if value in (train.backend, train.strategy.kind):
            yield f"note: {where(keys)}: {value} needs a GPU, and this machine has none"


def _by_reason(reasons: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Each reason once: what to say of its other keys, its first key, and the reason.

    >>> list(_by_reason([("a", "off"), ("b", "late"), ("c", "off"), ("d", "off")]))
    [(', nor have c, d', 'a', 'off'), ('', 'b', 'late')]
    """
    keys: dict[str, list[str]] = {}
    for key, reason in reasons:
        keys.setdefault(reason, []).append(key)
    for reason, (first, *others) in keys.items():
        said = f", nor {'have' if others[1:] else 'has'} {', '.join(others)}" if others else ""
        yield said, first, reason


def mask_notes(
    config: TrainConfig, masks: Sequence[Path | None], where: object
) -> Iterator[tuple[str, str]]:
    """Note that train.masks does not act on images without a mask."""
    missing = sum(mask is None for mask in masks)
    if config.masks and missing:
        some = "none" if missing == len(masks) else f"{missing}"
        yield "masks", f"{some} of the {len(masks)} images of {where} has a mask"


def notes(
    config: TrainConfig,
    entry: str,
    overridden: Iterable[str] = (),
    by_data: Iterable[tuple[str, str]] = (),
) -> list[str]:
    """Messages about parameters to show before training.

    Args:
        config: section `train`.
        entry: the entry that trains.
        overridden: keys that the command line overrides.
        by_data: keys that cannot act on the data, with the reason.
    """
    overridden = list(overridden)
    reasons = dict([*inert(config, entry), *unread(config, entry, overridden), *by_data])
    if not config.color_opt:  # the default, so that only a user who set them is told
        asked = [key for key in ("color_opt_lr", "color_opt_reg") if key in overridden]
        reasons |= dict.fromkeys(asked, "color_opt is off")
    named = [(dotted("train", key), why) for key, why in reasons.items()]
    messages = [f"{key} has no effect{others}: {why}" for others, key, why in _by_reason(named)]
    return [*messages, *(f"train.{key}: {reason}" for key, reason in doubtful(config))]


def doubtful(config: TrainConfig) -> list[tuple[str, str]]:
    """Parameters that act, but probably not as intended, with the reason."""
    strategy, doubts, without_effect = config.strategy, [], dict(inert(config))
    if strategy.kind == "default" and strategy.absgrad and strategy.grow_grad2d < 0.0005:
        reason = f"{strategy.grow_grad2d} suits signed gradients; absgrad needs about 0.0006"
        doubts.append(("strategy.grow_grad2d", reason))
    if strategy.kind == "mcmc" and config.opacity_reg == 0:
        doubts.append(("opacity_reg", "0 leaves mcmc nothing to relocate; gsplat uses 0.01"))
    between = config.scaled(strategy.halve_every)
    if strategy.kind == "default" and strategy.halve_every and between < _LEAST_BETWEEN_HALVINGS:
        reason = f"{between} steps between halvings are few for opacities to grow back; 50 were"
        doubts.append(("strategy.halve_every", f"{reason} enough for 12 photographs"))
    return [(key, reason) for key, reason in doubts if key not in without_effect]


def _inert_default(config: TrainConfig) -> Iterator[tuple[str, str]]:
    strategy = config.strategy
    end = min(config.scaled(strategy.refine_stop_iter), config.steps)
    reset = config.scaled(strategy.reset_every)
    idle = _never_refined(config)
    yield from ((key, idle) for key in _idle_keys(config) if idle)
    if reset >= end:
        yield "reset_every", "no reset before refinement ends"
    if strategy.halve_every and not config.halves:
        yield "halve_every", "opacities are not halved before refinement ends"
    if strategy.pause_refine_after_reset == 0:
        yield "pause_refine_after_reset", "0 pauses nothing"
    if idle:
        return
    if reset >= end:
        reason = f"size pruning begins after {reset} steps (reset_every); refinement ends at {end}"
        yield "prune_scale3d", reason
        yield "prune_scale2d", reason
    elif strategy.refine_scale2d_stop_iter == 0:
        yield "prune_scale2d", "refine_scale2d_stop_iter is 0"
    if strategy.refine_scale2d_stop_iter == 0:
        yield "grow_scale2d", "refine_scale2d_stop_iter is 0"


def _inert_mcmc(config: TrainConfig) -> Iterator[tuple[str, str]]:
    acting = {"kind", "prune_opa", "refine_start_iter", "refine_stop_iter", "refine_every"}
    for key in type(config.strategy).model_fields:
        if key not in acting:
            yield key, "mcmc relocates Gaussians instead"
    if idle := _never_refined(config):
        yield from ((key, idle) for key in _idle_keys(config) if key in acting)


def _first_refined(config: TrainConfig) -> int:
    """The first step at which Gaussians would be refined, counted from 0."""
    every = config.scaled(config.strategy.refine_every)
    return (config.scaled(config.strategy.refine_start_iter) // every + 1) * every


def _never_refined(config: TrainConfig) -> str:
    """Why no step of the training refines Gaussians; empty where one does."""
    strategy, first = config.strategy, _first_refined(config)
    end = min(config.scaled(strategy.refine_stop_iter), config.steps)
    if first >= end:
        return "refinement would begin after its end"
    every, reset = config.scaled(strategy.refine_every), config.scaled(strategy.reset_every)
    pause = int(strategy.pause_refine_after_reset * config.steps_scaler)
    if strategy.kind == "mcmc" or pause == 0:
        return ""
    steps = range(first, min(end, first + reset * every), every)  # then it repeats
    is_idle = pause >= reset or not any(step % reset >= pause for step in steps)
    return "pause_refine_after_reset leaves no step between two resets" if is_idle else ""


def _idle_keys(config: TrainConfig) -> list[str]:
    """Keys of `strategy` that cannot act when no step refines Gaussians."""
    strategy = config.strategy
    is_late = _first_refined(config) >= min(config.scaled(strategy.refine_stop_iter), config.steps)
    keys = ["refine_start_iter", "refine_every", "grow_grad2d", "grow_scale3d", "grow_scale2d"]
    keys += ["prune_scale3d", "prune_scale2d", "refine_scale2d_stop_iter"]
    keys += [key for key in ("absgrad", "revised_opacity") if getattr(strategy, key)]
    if is_late and strategy.pause_refine_after_reset:
        keys.append("pause_refine_after_reset")
    end = min(config.scaled(strategy.refine_stop_iter), config.steps)
    if strategy.kind == "default" and config.scaled(strategy.reset_every) < end:
        return keys  # a reset sets opacities by prune_opa, until refine_stop_iter
    if not config.halves:
        keys.append("prune_opa")  # halvings end above it, at refine_stop_iter
    elif is_late:
        return keys
    if not is_late or _first_refined(config) >= config.steps:
        keys.append("refine_stop_iter")
    return keys


def _inert_steps(config: TrainConfig) -> Iterator[tuple[str, str]]:
    lists = {"eval_steps": config.eval_steps, "save_steps": config.save_steps}
    lists |= {"ply_steps": config.ply_steps} if config.save_ply else {}
    for key, steps in lists.items():
        late = [step for step in steps if config.scaled(step) > config.steps]
        if late:
            yield key, f"{late} lie beyond the last step, {config.steps}"
    if config.ply_steps and not config.save_ply:
        yield "ply_steps", "save_ply is off"
    reached = (config.steps - 1) // config.scaled(config.sh_degree_interval)
    if reached < config.sh_degree:
        yield "sh_degree", f"only degree {reached} is reached before the end, by sh_degree_interval"


def _inert_switches(config: TrainConfig) -> Iterator[tuple[str, str]]:
    if config.init_type == "sfm":
        yield "init_num_pts", "it applies to random points only"
        yield "init_extent", "it applies to random points only"
    if not config.pose_opt:
        yield "pose_opt_lr", "pose_opt is off"
        yield "pose_opt_reg", "pose_opt is off"
    if config.sh_degree == 0:
        yield "shN_lr", "sh_degree is 0"
        yield "sh_degree_interval", "sh_degree is 0"
