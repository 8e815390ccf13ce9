"""The report as one HTML file: template, style and script of this folder, filled with results.

Everything is escaped but charts and rendered Markdown, which escape what they are given. The only
module that imports markdown_it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from stages.pages.report import figures, tables
from stages.pages.report.costs import StageCost
from stages.pages.report.origin import origin
from stages.pages.report.results import Results
from stages.pages.report.views import TRUTH, ReportView
from stages.pages.template import Markup, filled
from stages.quality.statistics import least_p
from stages.run.methods import PLAIN
from stages.scenes.study.memo import memo

_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_FILTERS = {
    "markdown": lambda text: Markup(_MARKDOWN.render(text)),
    "svg": Markup,
    "signed": lambda value, form: tables.minus(format(value, form)),
    "number": lambda value, form: tables.number(value, form).text,
}


@dataclass(frozen=True)
class SceneLinks:
    """What stage `show` made of a scene, by addresses relative to the report."""

    viewer: str
    others: Mapping[str, tuple[tuple[str, str], ...]]  # films and models: title, address


def page(
    results: Results,
    views: Mapping[str, Sequence[ReportView]],
    shown: Mapping[str, SceneLinks],
    costs: Sequence[StageCost],
    confidence: float,
    full_scale: float,
) -> str:
    """The whole report; `full_scale` is the error that the brightest colour stands for."""
    study, methods = results.study, results.study.methods
    left, right = _first_pair(results)
    return filled(
        Path(__file__).parent,
        _FILTERS,
        study=study,
        headline=figures.headline(results, confidence),
        confidence=confidence,
        full_scale=full_scale,
        scenes=len(results.downstream),
        least_p=least_p(len(results.downstream)),
        floor=results.means[methods[0]]["mean_color_psnr"],
        lpips_note=_lpips_note(results),
        methods_table=tables.methods_table(results),
        deltas_table=tables.deltas_table(results),
        scenes_table=tables.scenes_table(results),
        training_table=tables.training_table(results),
        costs_table=tables.costs_table(costs) if costs else None,
        others={
            kind: tables.plain_tables(kind, found)
            for kind, found in results.others.items()
            if found
        },
        delta_charts=figures.delta_charts(results),
        training_charts=list(figures.training_charts(results)),
        views=views,
        choices=(TRUTH, *methods),
        left=left,
        right=right,
        shown=shown,
        outcomes=outcomes(results),
        memo=memo(study),
        decision=results.decision,
        origin=origin(results),
    )


def outcomes(results: Results) -> list[tuple[str, str]]:
    """What a run produced of what every study has to: samples, a tuning, measures."""
    found = []
    if results.manifest:
        count = results.manifest
        found.append(("Samples", f"{count['train']} for the tuning, {count['test']} to check it"))
    if {"untuned", "tuned", "identity"} <= results.tuning.keys():
        row = {name: results.tuning[name]["psnr"] for name in ("identity", "untuned", "tuned")}
        found.append((
            "Tuning",
            f"{results.tuning['steps']} steps; on the internal-eval samples {row['identity']:.2f} "
            f"dB as given, {row['untuned']:.2f} dB untuned, {row['tuned']:.2f} dB tuned",
        ))  # fmt: skip
    evaluations = results.evaluations
    views = sum(
        evaluations.of(scene, evaluations.methods[0]).means["views"] for scene in evaluations.scenes
    )
    found.append((
        "Measures",
        f"{views} target views of {len(evaluations.scenes)} scenes by {len(evaluations.methods)} "
        f"methods; {len(results.downstream)} of the scenes answer the question",
    ))  # fmt: skip
    if results.chosen:
        found.append(("Chosen on the internal-eval scenes", results.chosen))
    return found


def _first_pair(results: Results) -> tuple[str, str]:
    """What the sliders show at first: before and after."""
    subject = results.study.subject
    if subject == PLAIN:
        return PLAIN, results.chosen or TRUTH
    return PLAIN if PLAIN in results.study.methods else TRUTH, subject


def _lpips_note(results: Results) -> str:
    """Why LPIPS is empty, if it is."""
    for scene in results.evaluations.scenes:
        note = results.evaluations.of(scene, results.evaluations.methods[0]).means.get("lpips_note")
        if note:
            return str(note)
    return ""
