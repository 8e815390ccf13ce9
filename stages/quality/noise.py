"""The noise floor: how much the plain splat's measures vary with the seed of its training.

Only larger differences between methods are meaningful.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.quality.comparison import Evaluation, Evaluations, Files
from stages.quality.config import CompareConfig
from stages.quality.keys import MEASURES, repeat_name
from stages.quality.paired_differences import MEAN, DeltaRow, delta_table
from stages.run.methods import PLAIN


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


def seed_noise(rows: Sequence[DeltaRow]) -> dict[str, Any]:
    """Standard deviation over trainings of each mean over scenes, and the number of trainings.

    The first training counts with a difference of zero.
    """
    floor: dict[str, Any] = {}
    for name in MEASURES:
        shifts = [
            row["difference"] for row in rows if (row["scene"], row["metric"]) == (MEAN, name)
        ]
        floor[name] = round(float(np.std([0.0, *shifts], ddof=1)), 6) if shifts else None
    return floor | {"trainings": 1 + len({row["comparison"] for row in rows})}
