"""Method `none-mean`: the mean of the plain splat's renders over all seeds.

It has no fixer, and costs as many trainings as there are seeds: what a fixer must beat.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.quality.comparison import Evaluation, Evaluations, View, check_means
from stages.quality.keys import NONE_MEAN
from stages.run.errors import UserError
from stages.run.files import read_json, read_table

COLUMNS = ("scene", "timestamp", "camera")


def with_averages(
    evaluations: Evaluations, scenes: Sequence[str], means: Path, views: Path
) -> Evaluations:
    """The evaluations of `scenes` with method `none-mean`, from the files of stage `average`.

    Raises UserError when a scene is missing there, broken, or was measured differently.
    """
    of_scenes = read_json(means)
    if missing := [scene for scene in scenes if scene not in of_scenes]:
        raise UserError(
            means,
            f"no {', '.join(missing)}",
            expected="every scene of study.downstream_scenes that is evaluated",
            fix="run `dvc repro average`",
        )
    for scene in scenes:
        check_means(of_scenes[scene], f"{means}  {scene}", "run `dvc repro -f average`")
    of_views = _views_by_scene(read_table(views, set(COLUMNS)))
    averaged: dict[tuple[str, str], Evaluation] = {}
    for scene in scenes:
        for method in evaluations.methods:
            averaged[scene, method] = evaluations.of(scene, method)
        averaged[scene, NONE_MEAN] = Evaluation(
            scene, NONE_MEAN, of_scenes[scene], of_views.get(scene, {})
        )
    return Evaluations(averaged)


def _views_by_scene(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[View, dict[str, Any]]]:
    views: dict[str, dict[View, dict[str, Any]]] = {}
    for row in rows:
        measures = {name: value for name, value in row.items() if name not in COLUMNS}
        views.setdefault(row["scene"], {})[row["timestamp"], row["camera"]] = measures
    return views
