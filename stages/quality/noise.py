"""The noise floor: how much the plain splat's means vary with the seed of its training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.quality.comparison import Evaluation, Evaluations, Files
from stages.quality.config import CompareConfig
from stages.quality.keys import CROPPED, FURTHER, MEASURES, TITLES, quantity, repeat_name
from stages.quality.paired_differences import MEAN, DeltaRow, delta_table
from stages.quality.statistics import t_quantile
from stages.run.methods import PLAIN
from stages.run.missing_methods import no_plain_for_seeds

NOT_MEASURED = "not measured: `study.seeds` is empty"


def noise_table(
    evaluations: Evaluations,
    scenes: Sequence[str],
    seeds: Sequence[int],
    config: CompareConfig,
    files: Files,
) -> list[DeltaRow]:
    """Rows of `delta_table` of every repeat against the plain splat.

    Raises UserError without the plain splat, and when a repeat is missing or was measured
    differently.

    Args:
        evaluations: Those of the study, with the plain splat.
        scenes: The downstream scenes.
        seeds: Of the repeats.
        config: Confidence and bootstrap.
        files: Files of an evaluation by scene and method.
    """
    if PLAIN not in evaluations.methods:
        raise no_plain_for_seeds("params.yaml  study.methods")
    names = [repeat_name(scene, seed) for scene in scenes for seed in seeds]
    of = "each of study.downstream_scenes by each of study.seeds"
    read = Evaluations.read(names, (PLAIN,), files, of, "repeat")
    paired = {(scene, PLAIN): evaluations.of(scene, PLAIN) for scene in scenes}
    for scene in scenes:
        for seed in seeds:
            repeat, label = read.of(repeat_name(scene, seed), PLAIN), f"seed{seed}"
            paired[scene, label] = Evaluation(scene, label, repeat.means, repeat.views)
    comparisons = [(f"seed{seed}", PLAIN) for seed in seeds]
    return delta_table(Evaluations(paired), scenes, config, comparisons)


def seed_noise(rows: Sequence[DeltaRow], confidence: float) -> dict[str, Any]:
    """The noise of each mean over scenes: metrics/delta.json, key `noise_floor`.

    `<measure>` is its standard deviation over trainings: scenes are trained independently, so it
    is the root of the sum of their variances, divided by the number of scenes. `<measure>_least`
    is the noise floor: that deviation times the t quantile of `confidence` with the degrees of
    freedom of all scenes, one less than the trainings in each. The first training counts with a
    difference of zero; a measure that no repeat has is None.
    """
    floor: dict[str, Any] = {}
    trainings = 1 + len({row["comparison"] for row in rows})
    measured = {row["metric"] for row in rows}
    further = [name for name in FURTHER if name in measured]
    for name in (*MEASURES, *further, *CROPPED):
        shifts: dict[str, list[float]] = {}
        for row in rows:
            if row["metric"] == name and row["scene"] != MEAN:
                shifts.setdefault(row["scene"], [0.0]).append(row["difference"])
        floor[name] = floor[f"{name}_least"] = None
        if shifts:
            variances = [np.var(values, ddof=1) for values in shifts.values()]
            deviation = float(np.sqrt(np.sum(variances))) / len(variances)
            reach = t_quantile(len(variances) * (trainings - 1), confidence)
            floor[name] = round(deviation, 6)
            floor[f"{name}_least"] = round(reach * deviation, 6)
    return floor | {"trainings": trainings, "confidence": confidence}


def floor_words(floor: Mapping[str, Any] | None) -> str:
    """The noise floor of every measure, or that it was not measured.

    >>> floor_words({"psnr_least": 0.127, "trainings": 2, "confidence": 0.95})
    '0.13 dB PSNR (95%, from 2 trainings of the plain splat)'
    """
    if not floor:
        return NOT_MEASURED
    parts = [
        f"{quantity(name, floor[f'{name}_least'])} {TITLES[name]}"
        for name in (*MEASURES, *FURTHER, *CROPPED)
        if floor.get(f"{name}_least") is not None
    ]
    of = f"{floor['confidence']:.0%}, from {floor['trainings']} trainings of the plain splat"
    return f"{', '.join(parts)} ({of})"
