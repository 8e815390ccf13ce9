"""All metrics that the report shows, read once.

What a run did not produce is absent here and in the report: the tuning without a fixer, LPIPS
without its weights, captures and static scenes that were not run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.quality.comparison import Evaluations, Files, downstream
from stages.quality.decision import verdict_lines
from stages.quality.measured import measured_rows
from stages.quality.paired_differences import TEXTS
from stages.run.files import read_json, read_table, read_tsv, shaped
from stages.run.methods import Method
from stages.scenes.study.config import StudyConfig

Row = Mapping[str, Any]
Cells = Mapping[str, str]


@dataclass(frozen=True)
class ResultFiles:
    """The files that the stages wrote; those of a scene by its name."""

    evaluation: Files
    summary: Path
    delta: Path
    delta_table: Path
    decision: Path
    training: Callable[[str], Path]
    training_curves: Callable[[str], Path]
    calibration: Callable[[str], Path]
    pairs: Callable[[str], Path]
    manifest: Path
    tuning: Path
    tuning_curve: Callable[[str], Path]  # `loss` or `validation`
    others: Mapping[str, Path]  # folders of numbers by kind: captures, static
    averages: Path  # of stage average: means of none-mean by scene


@dataclass(frozen=True, eq=False)
class Results:
    """All numbers of a run of the study."""

    study: StudyConfig
    evaluations: Evaluations
    downstream: Sequence[str]
    means: Mapping[str, Row]  # of every method
    deltas: Sequence[Row]  # metrics/plots/delta.tsv
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
    averages: Mapping[str, Row]  # of none-mean by scene, empty without other seeds
    noise_floor: Row  # of the plain splat's means, empty without other seeds
    measured: Sequence[tuple[str, str]]  # what was measured: question, answer
    judged: str  # the subject that stage compare judged
    verdict_lines: str  # on the subject, in Markdown, as metrics/decision.md begins
    headline: Mapping[str, Row]  # differences of the subject at its strength, by reference
    frontier: Sequence[Row]  # metrics/plots/frontier.tsv, empty without it
    strengths: Mapping[str, float]  # chosen on the internal-eval scenes, by method

    @classmethod
    def read(cls, study: StudyConfig, files: ResultFiles) -> "Results":
        """Read by the lists of the study. Raises UserError when an evaluation is missing."""
        delta = read_json(files.delta)
        with shaped(files.delta, "the file of stage compare", "run `dvc repro -f compare`"):
            verdict, subject = str(delta["study"]["verdict"]), delta["study"]["subject"]
            lines = "\n".join(verdict_lines(subject, delta))
        tuned = bool(study.fixers)
        sampled = (*study.tuning_scenes, *study.internal_eval_scenes)
        sampled += (*study.tuning_imports, *study.internal_eval_imports)
        return cls(
            study=study,
            evaluations=Evaluations.read(study.evaluated_scenes, study.methods, files.evaluation),
            downstream=downstream(study.downstream_scenes, study.evaluated_scenes),
            means=read_json(files.summary),
            deltas=read_table(files.delta_table, TEXTS),
            verdict=verdict,
            decision=files.decision.read_text() if files.decision.is_file() else "",
            training=_by_scene(study.scenes, files.training),
            calibration=_by_scene(study.scenes, files.calibration),
            curves={scene: _table(files.training_curves(scene)) for scene in study.scenes},
            pairs=_by_scene(sampled, files.pairs) if tuned else {},
            manifest=_object(files.manifest) if tuned else {},
            tuning=_object(files.tuning) if tuned else {},
            tuning_loss=_table(files.tuning_curve("loss")) if tuned else [],
            tuning_validation=_table(files.tuning_curve("validation")) if tuned else [],
            others={kind: _others(folder) for kind, folder in files.others.items()},
            averages=_object(files.averages),
            noise_floor=delta.get("noise_floor") or {},
            measured=measured_rows(delta),
            judged=subject,
            verdict_lines=lines,
            headline={
                key.partition("_vs_")[2]: of for key, of in delta.get("headline", {}).items()
            },
            frontier=_frontier(files.delta_table.with_name("frontier.tsv")),
            strengths=delta.get("frontier", {}).get("strengths", {}),
        )

    @property
    def ranked_by(self) -> str:
        """The method that the headline is of, by which views are ranked."""
        return self.study.subject

    def delta_rows(self, method: str, reference: str, metric: str) -> list[Row]:
        """One row per scene, then the mean."""
        wanted = (f"{method}_vs_{reference}", metric)
        return [row for row in self.deltas if (row["comparison"], row["metric"]) == wanted]

    def least(self, metric: str) -> float | None:
        """The least difference that is no noise; None where it was not measured."""
        return self.noise_floor.get(f"{metric}_least")

    def untuned(self, method: str) -> str | None:
        """The untuned form of a tuned method, if it was run."""
        untuned = Method.parse(method).untuned
        return untuned if untuned in self.evaluations.methods else None


def _by_scene(scenes: Sequence[str], file_of: Callable[[str], Path]) -> dict[str, Row]:
    rows = {scene: _object(file_of(scene)) for scene in scenes}
    return {scene: row for scene, row in rows.items() if row}


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _frontier(path: Path) -> list[dict[str, Any]]:
    return read_table(path, {"scene", "method"}) if path.is_file() else []


def _table(path: Path) -> list[dict[str, str]]:
    return read_tsv(path) if path.is_file() else []


def _others(folder: Path) -> dict[str, Row]:
    """The scalars of every JSON file below a folder, by its path; nested keys get a dot."""
    rows = {}
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        rows[name] = dict(_scalars(read_json(path)))
    return rows


def _scalars(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    scalars: list[tuple[str, Any]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            scalars += _scalars(item, f"{prefix}{key}.")
        elif not isinstance(item, list):
            scalars.append((prefix + key, item))
    return scalars
