"""Everything under metrics/ that the report shows, read once.

What a run did not make is absent here and in the report: the tuning when no fixer was used,
LPIPS without its weights, captures and static scenes that nobody ran.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.quality.comparison import Evaluations, downstream
from stages.quality.paired_differences import MEAN, TEXTS
from stages.run import layout
from stages.run.files import read_json, read_table, read_tsv, shaped
from stages.scenes.study.config import StudyConfig

Row = Mapping[str, Any]
Cells = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Results:
    """What a run of the study measured."""

    study: StudyConfig
    evaluations: Evaluations
    downstream: Sequence[str]
    means: Mapping[str, Row]  # of every method
    deltas: Sequence[Row]  # metrics/plots/delta.tsv
    chosen: str | None  # the tuned method that the internal-eval scenes chose
    verdict: str  # of the leak guard
    decision: str  # Markdown
    training: Mapping[str, Row]  # of every scene that was trained
    calibration: Mapping[str, Row]
    curves: Mapping[str, Sequence[Cells]]  # of the splats, by scene
    pairs: Mapping[str, Row]  # counts and digests of the samples, by scene
    manifest: Row
    tuning: Row  # empty without one
    tuning_loss: Sequence[Cells]
    tuning_validation: Sequence[Cells]
    others: Mapping[str, Mapping[str, Row]]  # captures and static scenes: name to numbers

    @classmethod
    def read(cls, study: StudyConfig) -> "Results":
        """Read by the lists of the study. Raises UserError when an evaluation is missing."""
        compared = read_json(layout.delta())
        with shaped(layout.delta(), "what compare wrote", "run `dvc repro -f compare`"):
            chosen, verdict = compared["study"]["chosen"], str(compared["study"]["verdict"])
        tuned = bool(study.fixers)
        learning = (*study.tuning_scenes, *study.internal_eval_scenes)
        return cls(
            study=study,
            evaluations=Evaluations.read(study.evaluated_scenes, study.methods),
            downstream=downstream(study.downstream_scenes, study.evaluated_scenes),
            means=read_json(layout.summary()),
            deltas=read_table(layout.delta_table(), TEXTS),
            chosen=chosen,
            verdict=verdict,
            decision=layout.decision().read_text() if layout.decision().is_file() else "",
            training=_by_scene(study.scenes, layout.train_metrics),
            calibration=_by_scene(study.scenes, layout.calibrate_metrics),
            curves={scene: _table(layout.train_curves(scene)) for scene in study.scenes},
            pairs=_by_scene(learning, layout.pairs_metrics) if tuned else {},
            manifest=_object(layout.manifest_metrics()) if tuned else {},
            tuning=_object(layout.tune_metrics()) if tuned else {},
            tuning_loss=_table(layout.tune_curve("loss")) if tuned else [],
            tuning_validation=_table(layout.tune_curve("validation")) if tuned else [],
            others={kind: _others(layout.METRICS / kind) for kind in ("captures", "static")},
        )

    def mean_delta(self, method: str, reference: str, metric: str) -> Row | None:
        """The difference over the downstream scenes, or None where it was not measured."""
        return next(
            (row for row in self.delta_rows(method, reference, metric) if row["scene"] == MEAN),
            None,
        )

    def delta_rows(self, method: str, reference: str, metric: str) -> list[Row]:
        """One row a scene, then the mean."""
        wanted = (f"{method}_vs_{reference}", metric)
        return [row for row in self.deltas if (row["comparison"], row["metric"]) == wanted]

    def twin(self, method: str) -> str | None:
        """The untuned form of a tuned method, if it was run."""
        kind, _, way = method.partition("-")
        twin = f"base-{way}"
        return twin if kind == "tuned" and twin in self.evaluations.methods else None


def _by_scene(scenes: Sequence[str], place: Any) -> dict[str, Row]:
    found = {scene: _object(place(scene)) for scene in scenes}
    return {scene: row for scene, row in found.items() if row}


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _table(path: Path) -> list[dict[str, str]]:
    return read_tsv(path) if path.is_file() else []


def _others(folder: Path) -> dict[str, Row]:
    """The scalars of every JSON file below a folder, by its path; nested keys get a dot."""
    found = {}
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        found[name] = dict(_scalars(read_json(path)))
    return found


def _scalars(value: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            found += _scalars(item, f"{before}{key}.")
        elif not isinstance(item, list):
            found.append((before + key, item))
    return found
