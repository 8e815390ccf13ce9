"""flags.tsv: the full-size recipe's flags in gsplat's spelling, with the values that were used."""

from collections.abc import Sequence
from typing import Any

from stages.splat.config import TrainConfig, inert
from stages.splat.training.densify import Strategy

COLUMNS = ["flag", "value", "effect"]
_ACTS = "acts"
_STRATEGY = "strategy."

# In the recipe's order, as the user listed them; each is a key of `train:`.
_FLAGS = (
    "data_factor",
    "save_ply",
    "pose_opt",
    "antialiased",
    "eval_steps",
    "ply_steps",
    "strategy.reset_every",
    "strategy.pause_refine_after_reset",
    "strategy.prune_scale3d",
    "strategy.prune_scale2d",
    "strategy.prune_opa",
    "strategy.grow_grad2d",
    "strategy.grow_scale3d",
    "strategy.refine_stop_iter",
    "strategy.refine_scale2d_stop_iter",
    "scale_reg",
    "scales_lr",
    "means_lr",
)
_LEFT_OPEN = ("pose_opt_lr", "pose_opt_reg")  # by the list

Row = dict[str, str]  # COLUMNS


def flag_rows(config: TrainConfig, strategy: Strategy, limit: str = "") -> list[Row]:
    """One row per flag of the recipe, then the values that it leaves open; the limit is the last.

    Args:
        config: the trainer's.
        strategy: the trainer's, whose numbers of steps are scaled.
        limit: what became of `max_gaussians`, see `limit_effect`; empty before the training.
    """
    reasons = dict(inert(config))
    rows = [_row("--disable_viewer", True, "there is no viewer while training")]
    rows += [_row(f"--{key}", _used(config, strategy, key), reasons.get(key, "")) for key in _FLAGS]
    rows.append(_row("--max_steps", config.steps, ""))
    for key in _LEFT_OPEN:
        rows.append(_row(f"train.{key}", getattr(config, key), reasons.get(key, "")))
    if config.strategy.halve_every:
        halved = _used(config, strategy, "strategy.halve_every")
        reason = reasons.get("strategy.halve_every", "")
        rows.append(_row("train.strategy.halve_every", halved, reason))
    held = limit or "growth stops at it; gsplat has no such flag"
    return [*rows, {**_row("train.max_gaussians", config.max_gaussians, ""), "effect": held}]


def limit_effect(
    config: TrainConfig, limited: bool, counts: Sequence[int], left_out: int = 0
) -> str:
    """What `max_gaussians` did in a training with these numbers of Gaussians in its course.

    It started without `left_out` of its sparse points.

    >>> limit_effect(TrainConfig(max_gaussians=9), False, [3, 7, 5])
    'not reached: at most 7 Gaussians'
    """
    if left_out:
        return f"reached: {left_out} sparse points were left out at the start, growth was held"
    if limited or max(counts) >= config.max_gaussians:
        return "reached: growth was held at it"
    return f"not reached: at most {max(counts)} Gaussians"


def flag_lines(rows: Sequence[Row]) -> list[str]:
    """The rows as aligned lines."""
    names = [f"{row['flag']} {row['value']}" for row in rows]
    width = max(map(len, names))
    return [f"{name:<{width}}  {row['effect']}" for name, row in zip(names, rows, strict=True)]


def _row(flag: str, value: Any, reason: str) -> Row:
    effect = f"no effect: {reason}" if reason else "off" if value is False else _ACTS
    return {"flag": flag, "value": _text(value), "effect": effect}


def _used(config: TrainConfig, strategy: Strategy, key: str) -> Any:
    if key.startswith(_STRATEGY):
        name = key.removeprefix(_STRATEGY)
        return getattr(strategy, name, getattr(config.strategy, name))  # mcmc has few of them
    value = getattr(config, key)
    return tuple(map(config.scaled, value)) if key.endswith("_steps") else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
