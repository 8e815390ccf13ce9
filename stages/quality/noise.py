"""The noise floor: what another seed of the plain splat's training moves the numbers by.

A difference between methods says something when it is larger than that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.quality.comparison import Evaluation, Evaluations, Files
from stages.quality.config import CompareConfig
from stages.quality.keys import MEASURES, repeated
from stages.quality.paired_differences import MEAN, Row, delta_table
from stages.run.methods import PLAIN


def noise_table(
    evaluations: Evaluations,
    scenes: Sequence[str],
    seeds: Sequence[int],
    config: CompareConfig,
    files: Files,
) -> list[Row]:
    """Rows of `delta_table` of every repeat against the plain splat.

    Raises UserError when a repeat is missing or was measured otherwise.
    """
    names = [repeated(scene, seed) for scene in scenes for seed in seeds]
    read = Evaluations.read(names, (PLAIN,), files)
    found = {(scene, PLAIN): evaluations.of(scene, PLAIN) for scene in scenes}
    for scene in scenes:
        for seed in seeds:
            one, label = read.of(repeated(scene, seed), PLAIN), f"seed{seed}"
            found[scene, label] = Evaluation(scene, label, one.means, one.views)
    comparisons = [(f"seed{seed}", PLAIN) for seed in seeds]
    return delta_table(Evaluations(found), scenes, config, comparisons)


def noise_floor(rows: Sequence[Row]) -> dict[str, Any]:
    """Standard deviation of each mean over scenes, over all trainings; and how many there were.

    The first training differs from itself by nothing.
    """
    floor: dict[str, Any] = {}
    for name in MEASURES:
        moved = [row["difference"] for row in rows if (row["scene"], row["metric"]) == (MEAN, name)]
        floor[name] = round(float(np.std([0.0, *moved], ddof=1)), 6) if moved else None
    return floor | {"trainings": 1 + len({row["comparison"] for row in rows})}
