"""The noise floor: how much the plain splat's measures vary with the seed of its training.

Only larger differences between methods are meaningful.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stages.quality.comparison import Evaluation, Evaluations, Files
from stages.quality.config import CompareConfig
from stages.quality.keys import FORMATS, MEASURES, TITLES, UNITS, repeat_name
from stages.quality.paired_differences import MEAN, DeltaRow, delta_table
from stages.quality.statistics import t_quantile
from stages.run.methods import PLAIN

NOT_MEASURED = "the noise of the seed was not measured: study.seeds is empty"


def noise_table(
    evaluations: Evaluations,
    scenes: Sequence[str],
    seeds: Sequence[int],
    config: CompareConfig,
    files: Files,
) -> list[DeltaRow]:
    """Rows of `delta_table` of every repeat against the plain splat.

    Raises UserError when a repeat is missing or was measured differently.

    Args:
        evaluations: Those of the study, with the plain splat.
        scenes: The downstream scenes.
        seeds: Of the repeats.
        config: Confidence and bootstrap.
        files: Files of an evaluation by scene and method.
    """
    names = [repeat_name(scene, seed) for scene in scenes for seed in seeds]
    read = Evaluations.read(names, (PLAIN,), files)
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
    is the least gain that counts: that deviation times the t quantile of `confidence` with the
    degrees of freedom of all scenes, one less than the trainings in each. The first training
    counts with a difference of zero; a measure that no repeat has is None.
    """
    floor: dict[str, Any] = {}
    trainings = 1 + len({row["comparison"] for row in rows})
    for name in MEASURES:
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
    return floor | {"trainings": trainings}


def below_noise(name: str, difference: float, floor: Mapping[str, Any] | None) -> bool:
    """Whether a difference of a mean over scenes could come from the seed of the training.

    >>> below_noise("psnr", -0.2, {"psnr_least": 0.3}), below_noise("psnr", 0.4, None)
    (True, False)
    """
    least = floor.get(f"{name}_least") if floor else None
    return least is not None and abs(difference) < least


def noise_lines(floor: Mapping[str, Any] | None, confidence: float) -> Iterator[str]:
    """The noise of the seed as items of a list, one for each measure; or that it is unknown."""
    if not floor:
        yield f"- {NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}, so a gain may be noise."
        return
    for name in MEASURES:
        if floor[name] is not None:
            form = FORMATS[name]
            unit = f" {UNITS[name]}" if name in UNITS else ""
            yield (
                f"- The plain splat's {TITLES[name]} varies with the seed by {floor[name]:{form}}"
                f"{unit} (standard deviation of {floor['trainings']} trainings): gains below "
                f"{floor[f'{name}_least']:{form}}{unit} are none ({confidence:.0%}, Student t)."
            )
