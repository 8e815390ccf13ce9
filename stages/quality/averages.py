"""Method `none-mean`: the mean of the plain splat's renders over all seeds.

It has no fixer, and costs as many trainings as there are seeds: what a fixer must beat.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.quality.comparison import Evaluation, Evaluations
from stages.quality.keys import NONE_MEAN
from stages.run.errors import UserError
from stages.run.files import read_json, read_table
from stages.run.methods import PLAIN

COLUMNS = ("scene", "timestamp", "camera")


def with_averages(
    evaluations: Evaluations, scenes: Sequence[str], means: Path, views: Path
) -> Evaluations:
    """The evaluations of `scenes` with method `none-mean`, from the files of stage `average`.

    Raises UserError when a scene is missing there or was measured differently.
    """
    of_scenes = read_json(means)
    if missing := [scene for scene in scenes if scene not in of_scenes]:
        raise UserError(
            means,
            f"no {', '.join(missing)}",
            expected="every scene of study.downstream_scenes that is evaluated",
            fix="run `dvc repro average`",
        )
    rows = read_table(views, set(COLUMNS))
    averaged: dict[tuple[str, str], Evaluation] = {}
    for scene in scenes:
        for method in evaluations.methods:
            averaged[scene, method] = evaluations.of(scene, method)
        averaged[scene, NONE_MEAN] = _evaluation(scene, of_scenes[scene], rows)
    return Evaluations(averaged)


def compared_with_average(chosen: str | None) -> list[tuple[str, str]]:
    """(method, reference) of the comparisons with `none-mean`.

    >>> compared_with_average("tuned-post")
    [('tuned-post', 'none-mean'), ('none-mean', 'none')]
    """
    return [(chosen, NONE_MEAN)] * (chosen is not None) + [(NONE_MEAN, PLAIN)]


def _evaluation(
    scene: str, means: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Evaluation:
    views = {
        (row["timestamp"], row["camera"]): {
            name: value for name, value in row.items() if name not in COLUMNS
        }
        for row in rows
        if row["scene"] == scene
    }
    return Evaluation(scene, NONE_MEAN, means, views)
