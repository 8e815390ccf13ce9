"""Paired differences between methods.

A difference is the method's measure minus its reference's, on the same view of the same scene.
Scenes are the independent units: intervals over scenes are Student's. Intervals within a scene are
moving-block bootstraps over its views and hold for that scene only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.quality.comparison import Evaluation, Evaluations
from stages.quality.config import CompareConfig
from stages.quality.findings import finding
from stages.quality.keys import (
    FURTHER,
    FURTHER_ALIGNED,
    MEASURED,
    MEASURES,
    NONE_MEAN,
    better,
)
from stages.quality.statistics import block_interval, sign_flip_p, t_interval, win_rate
from stages.run.methods import PLAIN, Method

MEAN = "mean"
COLUMNS = [
    "comparison",
    "scene",
    "metric",
    "difference",
    "low",
    "high",
    "interval",
    "won",
    "sign_flip_p",
]
TEXTS = {"comparison", "scene", "metric", "interval"}  # columns of text
_OVER_SCENES = "Student t over scenes"
_IN_SCENE = "block bootstrap over the views of this scene"
# Keys of metrics/delta.json for the mean over scenes only, with their columns.
_OF_MEAN = {
    "t_low": "low",
    "t_high": "high",
    "scenes_improved": "won",
    "sign_flip_p": "sign_flip_p",
}

DeltaRow = dict[str, Any]


def comparisons_of(methods: Sequence[str], subject: str = "") -> list[tuple[str, str]]:
    """(method, reference) for each method: against the plain splat, and tuned against untuned.

    The subject is compared with `none-mean` as well.

    >>> comparisons_of(["none", "base-post", "tuned-post"])
    [('base-post', 'none'), ('tuned-post', 'none'), ('tuned-post', 'base-post')]
    """
    comparisons = []
    for method in methods:
        references = [PLAIN, Method.parse(method).untuned]
        references += [NONE_MEAN] if method == subject != PLAIN else []
        comparisons += [(method, one) for one in references if one in methods and one != method]
    return comparisons


def delta_table(
    evaluations: Evaluations,
    scenes: Sequence[str],
    config: CompareConfig,
    comparisons: Sequence[tuple[str, str]] | None = None,
) -> list[DeltaRow]:
    """Rows of every comparison, metric and scene, and of the mean over scenes.

    A comparison is (method, reference); by default those of `comparisons_of`. `won` is the share of
    a scene's views that improved, where a tie counts half, and for the mean the number of scenes
    that improved. A measure that one side lacks has no row, and no mean unless every scene has it.
    """
    rows = []
    for method, reference in comparisons or comparisons_of(evaluations.methods):
        for name in (*MEASURED, *FURTHER, *FURTHER_ALIGNED):
            by_scene = []
            for scene in scenes:
                sides = evaluations.of(scene, method), evaluations.of(scene, reference)
                by_scene += _in_scene(*sides, name, config)
            if len(by_scene) == len(scenes):
                by_scene.append(_over_scenes(by_scene, name, config))
            keys = {"comparison": f"{method}_vs_{reference}", "metric": name}
            rows += [keys | row for row in by_scene]
    return rows


def mean_rows(
    comparison: str,
    method: Mapping[str, Mapping[str, Any]],
    reference: Mapping[str, Mapping[str, Any]],
    config: CompareConfig,
    names: Sequence[str] = MEASURES,
) -> list[DeltaRow]:
    """Rows of one comparison, from the means of the same scenes by either side.

    They have no intervals within a scene. A measure that a scene lacks has no row.
    """
    rows: list[DeltaRow] = []
    for name in names:
        if any(of.get(name) is None for side in (method, reference) for of in side.values()):
            continue
        by_scene = [
            {"scene": scene, "difference": _rounded(method[scene][name] - reference[scene][name])}
            for scene in method
        ]
        keys = {"comparison": comparison, "metric": name}
        rows += [keys | row for row in (*by_scene, _over_scenes(by_scene, name, config))]
    return rows


def delta_metrics(
    table: Sequence[DeltaRow],
    scenes: Sequence[str],
    floor: Mapping[str, Any],
    names: Sequence[str] = MEASURES,
) -> dict[str, dict[str, Any]]:
    """The table as metrics/delta.json: `<method>_vs_<reference>` by scene and in the mean.

    Short enough for `dvc metrics diff --targets`: differences of the measures `names`, and for the
    mean the ends of Student's interval, the number of improved scenes, the sign-flip p and what
    the difference is by the noise floor and the interval.
    """
    deltas: dict[str, dict[str, Any]] = {}
    measured = {row["metric"] for row in table}
    further = [name for name in FURTHER if name in measured]
    names = tuple(dict.fromkeys((*names, *further)))
    of_mean = [f"{name}_{key}" for name in names for key in (*_OF_MEAN, "is")]
    for row in table:
        empty = {scene: dict.fromkeys(names) for scene in scenes}
        empty[MEAN] = dict.fromkeys((*names, *of_mean))
        entry = deltas.setdefault(row["comparison"], empty)[row["scene"]]
        name = row["metric"]
        if name not in names:
            continue
        entry[name] = row["difference"]
        if row["scene"] == MEAN:
            entry |= {f"{name}_{key}": row[column] for key, column in _OF_MEAN.items()}
            ends = row["low"], row["high"]
            entry[f"{name}_is"] = finding(name, row["difference"], *ends, floor)
    return deltas


def _over_scenes(rows: Sequence[DeltaRow], name: str, config: CompareConfig) -> DeltaRow:
    values = [row["difference"] for row in rows]
    low, high = t_interval(values, config.confidence) or (None, None)
    return {
        "scene": MEAN,
        "difference": _rounded(np.mean(values)),
        "low": _rounded(low),
        "high": _rounded(high),
        "interval": _OVER_SCENES,
        "won": sum(value * better(name) > 0 for value in values),
        "sign_flip_p": _rounded(sign_flip_p(values, config.seed)),
    }


def _in_scene(
    method: Evaluation, reference: Evaluation, name: str, config: CompareConfig
) -> list[DeltaRow]:
    """The row of one scene, or none if no view has the measure on both sides."""
    differences = _by_camera(method, reference, name)
    if not differences:
        return []
    low, high = block_interval(
        differences,
        config.confidence,
        length=config.block_length,
        draws=config.bootstrap_draws,
        seed=config.seed,
    )
    every = np.concatenate(differences)
    row = {
        "scene": method.scene,
        "difference": _rounded(every.mean()),
        "low": _rounded(low),
        "high": _rounded(high),
        "interval": _IN_SCENE,
        "won": _rounded(win_rate(every, better(name))),
        "sign_flip_p": None,
    }
    return [row]


def _by_camera(method: Evaluation, reference: Evaluation, name: str) -> list[np.ndarray]:
    """Differences of each camera in order of time; views that one side lacks are skipped."""
    cameras: dict[str, list[float]] = {}
    for view in sorted(method.views):
        new, old = method.views[view].get(name), reference.views[view].get(name)
        if new is not None and old is not None:
            cameras.setdefault(view[1], []).append(new - old)
    return [np.array(values) for values in cameras.values()]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
