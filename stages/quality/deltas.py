"""Paired differences between methods: metrics/delta.json.

A difference is the method's number minus its reference's, on the same view of the same scene. The
scenes are the sample. Intervals over scenes are Student's; those inside a scene come from a
moving-block bootstrap over its views and speak of that scene alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.quality.comparison import Evaluation, Evaluations
from stages.quality.config import CompareConfig
from stages.quality.keys import ALIGNED, MASKED, MEASURES, better
from stages.quality.statistics import block_interval, sign_flip_p, t_interval, win_rate

PLAIN = "none"
COMPARED = (*MEASURES, ALIGNED[0], *MASKED)


def pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """(method, reference) for each method: against the plain splat, and tuned against base.

    >>> pairs(["none", "base-post", "tuned-post"])
    [('base-post', 'none'), ('tuned-post', 'none'), ('tuned-post', 'base-post')]
    """
    found = []
    for method in methods:
        kind, _, way = method.partition("-")
        references = [PLAIN, f"base-{way}"] if kind == "tuned" else [PLAIN]
        found += [(method, one) for one in references if one in methods and one != method]
    return found


def deltas(
    evaluations: Evaluations, scenes: Sequence[str], config: CompareConfig
) -> dict[str, dict[str, Any]]:
    """`<method>_vs_<reference>` by scene and in the mean; empty with a single method.

    A number that one side lacks in any scene is None everywhere.
    """
    return {
        f"{method}_vs_{reference}": _compare(evaluations, scenes, method, reference, config)
        for method, reference in pairs(evaluations.methods)
    }


def _compare(
    evaluations: Evaluations,
    scenes: Sequence[str],
    method: str,
    reference: str,
    config: CompareConfig,
) -> dict[str, Any]:
    result: dict[str, Any] = {"mean": {"scenes": len(scenes)}, **{scene: {} for scene in scenes}}
    for name in COMPARED:
        found = []
        for scene in scenes:
            sides = evaluations.of(scene, method), evaluations.of(scene, reference)
            in_scene = _in_scene(*sides, name, config)
            result[scene] |= in_scene
            found.append(in_scene[name])
        result["mean"] |= _over_scenes(found, name, config)
    return result


def _over_scenes(differences: list[float | None], name: str, config: CompareConfig) -> dict:
    keys = [name, *(f"{name}_{end}" for end in ("t_low", "t_high", "improved", "sign_flip_p"))]
    values = [one for one in differences if one is not None]
    if not values or len(values) < len(differences):
        return dict.fromkeys(keys)
    low, high = t_interval(values, config.confidence) or (None, None)
    improved = sum(one * better(name) > 0 for one in values)
    p = sign_flip_p(values, config.seed)
    return dict(zip(keys, map(_rounded, (np.mean(values), low, high, improved, p)), strict=True))


def _in_scene(
    method: Evaluation, reference: Evaluation, name: str, config: CompareConfig
) -> dict[str, float | None]:
    keys = [name, *(f"{name}_{end}" for end in ("block_low", "block_high", "views_won"))]
    differences = _by_camera(method, reference, name)
    if not differences:
        return dict.fromkeys(keys)
    low, high = block_interval(
        differences,
        config.confidence,
        length=config.block_length,
        draws=config.bootstrap_draws,
        seed=config.seed,
    )
    every = np.concatenate(differences)
    found = (every.mean(), low, high, win_rate(every, better(name)))
    return dict(zip(keys, map(_rounded, found), strict=True))


def _by_camera(method: Evaluation, reference: Evaluation, name: str) -> list[np.ndarray]:
    """Differences of each camera in order of time; a view that one side lacks is left out."""
    cameras: dict[str, list[float]] = {}
    for view in sorted(method.views):
        new, old = method.views[view].get(name), reference.views[view].get(name)
        if new is not None and old is not None:
            cameras.setdefault(view[1], []).append(new - old)
    return [np.array(values) for values in cameras.values()]


def _rounded(value: float | None) -> float | None:
    if value is None or isinstance(value, int):
        return value
    return round(float(value), 6)
