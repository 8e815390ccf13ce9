"""The study's subject at its strength: metrics/{headline,subject}.json, and its differences.

The subject is named in params before anything is run. Its strength has the highest PSNR on the
internal-eval scenes; the downstream scenes have no part in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.quality.comparison import Evaluations
from stages.quality.config import CompareConfig
from stages.quality.frontier import Frontiers
from stages.quality.keys import CROPPED, FURTHER, MEASURES, further_in
from stages.quality.paired_differences import DeltaRow, comparisons_of, delta_metrics, mean_rows
from stages.quality.statistics import column_means
from stages.run.errors import UserError
from stages.run.methods import PLAIN
from stages.run.missing_methods import no_reference

Means = Mapping[str, Mapping[str, Any]]  # measures by scene


class Headline:
    """The subject and its references, each at the strength that was chosen for it."""

    def __init__(
        self,
        subject: str,
        evaluations: Evaluations,
        frontiers: Frontiers,
        scenes: Sequence[str],
        strengths: Mapping[str, float],
    ):
        """Raises UserError when the subject, or all that it is compared with, is no method.

        Args:
            subject: `study.subject`.
            evaluations: Of the downstream scenes; also by `none-mean` where that was measured.
            frontiers: Of the methods of the study.
            scenes: The downstream scenes.
            strengths: Of every method with a fixer.
        """
        if subject not in frontiers.methods:
            raise UserError(
                "params.yaml  study.subject",
                repr(subject),
                expected=f"one of study.methods: {', '.join(frontiers.methods)}",
            )
        if subject != PLAIN and all(one != subject for one, _ in comparisons_of(frontiers.methods)):
            raise no_reference(subject, "params.yaml  study.methods")
        self.subject, self.strengths = subject, strengths
        self._evaluations, self._frontiers, self._scenes = evaluations, frontiers, scenes

    def numbers(self) -> dict[str, Any]:
        """Means over scenes for DVC, no text: `psnr`, of the plain splat `psnr_none`, and so on.

        `dvc metrics show` and `dvc exp show` have a column for each key, so there are few.
        """
        methods = {"": self.subject}
        methods |= {f"_{PLAIN}": PLAIN} if PLAIN in self._frontiers.methods else {}
        numbers = {}
        for suffix, method in methods.items():
            means = column_means(list(self._at(method).values()), MEASURES)
            numbers |= {name + suffix: value for name, value in means.items()}
        return numbers

    def means(self) -> dict[str, Any]:
        """The subject's measures by scene and in the mean; of people where they are measured."""
        rows, names = self._at(self.subject), self.measures
        by_scene = {scene: {name: row[name] for name in names} for scene, row in rows.items()}
        return by_scene | {"mean": column_means(list(rows.values()), names)}

    @property
    def measures(self) -> tuple[str, ...]:
        """Those of whole images, and those that not every study has, where every scene has them."""
        rows = self._at(self.subject).values()
        cropped = all(row[CROPPED[0]] is not None for row in rows)
        further = [name for name in further_in(rows) if name in FURTHER]  # not of blends
        return (*MEASURES, *further, *(CROPPED if cropped else ()))

    def rows(self, config: CompareConfig) -> list[DeltaRow]:
        """Differences of `measures` of the subject to each of its references, over scenes."""
        rows = []
        for method, reference in comparisons_of(self._evaluations.methods, self.subject):
            if method == self.subject:
                sides = self._at(method), self._at(reference)
                rows += mean_rows(f"{method}_vs_{reference}", *sides, config, self.measures)
        return rows

    def differences(self, config: CompareConfig, floor: Mapping[str, Any]) -> dict[str, Any]:
        """The rows as in metrics/delta.json; `floor` is its noise floor."""
        return delta_metrics(self.rows(config), self._scenes, floor, self.measures)

    def _at(self, method: str) -> Means:
        """Measures of a method by scene: at its strength, or as evaluated without one or at 1."""
        strength = self.strengths.get(method, 1.0)
        return {
            scene: self._evaluations.of(scene, method).means
            if strength == 1
            else self._frontiers.at(scene, method, strength)
            for scene in self._scenes
        }
