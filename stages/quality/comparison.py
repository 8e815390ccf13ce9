"""Evaluations of several methods on the same views.

Only like is compared with like: for each scene every method must have been measured on the same
views, against the same ground truth, by the same protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.quality.floor import below_mean_color
from stages.quality.keys import AVERAGED, further_in
from stages.quality.statistics import column_means
from stages.run.errors import UserError, raise_all
from stages.run.files import read_json, read_table
from stages.run.methods import PLAIN
from stages.run.plurals import first_few

Measure = float | None
View = tuple[str, str]  # timestamp, camera
Files = Callable[[str, str], tuple[Path, Path]]  # of scene and method: means, and rows of views


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of stage `evaluate` for one scene and method."""

    scene: str
    method: str
    means: Mapping[str, Any]
    views: Mapping[View, Mapping[str, Measure]]


class Evaluations:
    """Every evaluated scene by every method, all comparable."""

    def __init__(self, evaluations: Mapping[tuple[str, str], Evaluation]):
        """`evaluations` by scene and method. Raises UserError for those that do not compare."""
        self._evaluations = evaluations
        self.scenes = tuple(dict.fromkeys(scene for scene, _ in evaluations))
        self.methods = tuple(dict.fromkeys(method for _, method in evaluations))
        raise_all(error for scene in self.scenes for error in self._differences(scene))

    @classmethod
    def read(
        cls,
        scenes: Sequence[str],
        methods: Sequence[str],
        files: Files,
        of: str = "each of study.evaluated_scenes by each of study.methods",
        stage: str = "evaluate",
    ) -> "Evaluations":
        """Read the evaluation of every scene by every method; `stage` makes them, for all `of`.

        Raises UserError that lists every missing evaluation, or every one that was measured
        differently.
        """
        pairs = [(scene, method) for scene in scenes for method in methods]
        missing = [pair for pair in pairs if not all(path.is_file() for path in files(*pair))]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(pairs)} evaluations are missing",
                ", ".join(f"{scene} by {method}" for scene, method in missing),
                expected=of,
                fix=f"run `dvc repro {stage}`",
            )
        return cls({pair: _read(*pair, files) for pair in pairs})

    def of(self, scene: str, method: str) -> Evaluation:
        """One evaluation."""
        return self._evaluations[scene, method]

    def _differences(self, scene: str) -> list[UserError]:
        """Errors for methods of a scene that were measured differently from the first."""
        first = self.of(scene, self.methods[0])
        errors = []
        for method in self.methods[1:]:
            other = self.of(scene, method)
            got = first.means["protocol"], other.means["protocol"]
            if got[0] != got[1]:
                errors.append(_unequal(scene, first, other, f"{got[0]!r} and {got[1]!r}"))
            elif first.views.keys() != other.views.keys():
                unmatched = sorted(first.views.keys() ^ other.views.keys())
                listed = first_few(["/".join(view) for view in unmatched])
                errors.append(_unequal(scene, first, other, f"only one has {listed}"))
        return errors


def downstream(scenes: Sequence[str], evaluated: Sequence[str]) -> list[str]:
    """The downstream scenes that were evaluated. Raises UserError when there is none."""
    chosen = [scene for scene in scenes if scene in evaluated]
    if not chosen:
        raise UserError(
            "params.yaml  study.downstream_scenes",
            "none of them is in study.evaluated_scenes",
            expected="at least one downstream scene that is evaluated",
        )
    return chosen


def summary(evaluations: Evaluations, scenes: Sequence[str]) -> dict[str, Any]:
    """Means of every method over scenes of equal weight: metrics/summary.json."""
    by_method = {}
    for method in evaluations.methods:
        rows = [evaluations.of(scene, method).means for scene in scenes]
        means = column_means(rows, (*AVERAGED, *further_in(rows)))
        by_method[method] = means | {"scenes": len(scenes)}
    return by_method


def plain_below_floor(evaluations: Evaluations, scenes: Sequence[str]) -> list[str]:
    """The scenes whose plain Gaussians are worse than an image of the mean colour."""
    if PLAIN not in evaluations.methods:
        return []
    return [name for name in scenes if below_mean_color(evaluations.of(name, PLAIN).means)]


def _read(scene: str, method: str, files: Files) -> Evaluation:
    of_scene, of_views = files(scene, method)
    means = read_json(of_scene)
    check_means(means, of_scene, "run `dvc repro -f evaluate`")
    rows = read_table(of_views, {"timestamp", "camera"})
    views = {(row.pop("timestamp"), row.pop("camera")): row for row in rows}
    return Evaluation(scene, method, means, views)


def check_means(means: Any, where: object, fix: str) -> None:
    """Raise UserError unless these are the means of a scene by a method."""
    if not isinstance(means, dict):
        raise UserError(where, f"got {means!r}", expected="an object: {...}", fix=fix)
    missing = [key for key in (*AVERAGED, "views", "protocol") if key not in means]
    if missing:
        raise UserError(where, f"no {', '.join(missing)}", fix=fix)
    for key in (*AVERAGED, *further_in([means])):
        if not _is_number(means[key]):
            raise UserError(where, f"{key}: {means[key]!r}", expected="a number, or null", fix=fix)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _unequal(scene: str, first: Evaluation, other: Evaluation, got: str) -> UserError:
    return UserError(
        f"{scene}: {first.method} and {other.method} were not measured alike",
        got,
        expected="the same views, ground truth, size, LPIPS weights and masks",
        fix="run `dvc repro evaluate`",
    )
