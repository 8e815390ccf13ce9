"""The report as one HTML file: the results in the template, style and script of this folder.

Everything is escaped except charts and rendered Markdown, which escape their inputs. The only
module that imports markdown_it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from stages.pages.report import figures, tables
from stages.pages.report.costs import PAUSE_S, stage_costs, wall_time
from stages.pages.report.origin import origin
from stages.pages.report.other_tables import other_tables
from stages.pages.report.protocol import measured_rows
from stages.pages.report.results import Results, Row
from stages.pages.report.views import TRUTH, ReportView, psnr_by_view
from stages.pages.template import Markup, render_template
from stages.quality.findings import rule
from stages.quality.floor import floor_warnings
from stages.quality.keys import FURTHER
from stages.quality.keys import TITLES as NAMES
from stages.quality.statistics import least_p
from stages.run.errors import UserError
from stages.run.methods import PLAIN
from stages.run.plurals import counted
from stages.run.provenance import Cost
from stages.scenes.study.memo import memo

# Texts of params.yaml may name images elsewhere, which a report must not load.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable("image")


def _markdown(text: str) -> Markup:
    """Rendered below a section's heading: a first heading becomes an h3."""
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + 2)}"
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


_FILTERS = {
    "markdown": _markdown,
    "svg": Markup,
    "signed": lambda value, form: tables.minus(format(value, form)),
    "number": lambda value, form: tables.number(value, form).text,
}


@dataclass(frozen=True)
class SceneLinks:
    """A scene's files of stage `show`, by addresses relative to the report."""

    viewer: str
    downloads: Mapping[str, tuple[tuple[str, str], ...]]  # films and models: title, address


def page(
    results: Results,
    views: Mapping[str, Sequence[ReportView]],
    links: Mapping[str, SceneLinks],
    costs: Mapping[str, Mapping[str, Cost]],
    confidence: float,
    full_scale: float,
    *,
    brief: bool = False,
) -> str:
    """The whole report, or its `brief` form for git.

    The brief one has no costs, no versions and no revision, so that equal results give equal bytes
    on every machine.

    Args:
        results: All numbers.
        views: Views of each scene with their images; scenes in the order of the page.
        links: Files of stage `show`; scenes without a viewer are absent.
        costs: Costs by stage and item; empty if no stage ran in this working copy.
        confidence: Of all intervals, such as 0.95.
        full_scale: Mean absolute error that has the brightest colour.
    """
    study, methods = results.study, results.study.methods
    left, right = _first_pair(results)
    wall = wall_time(costs)
    return render_template(
        Path(__file__).parent,
        _FILTERS,
        brief=brief,
        study=study,
        verdict=results.verdict_lines,
        headline=figures.headline(results, confidence),
        rule=rule(results.noise_floor).replace("`", ""),
        full_strength=tables.full_strength_table(results),
        confidence=confidence,
        full_scale=full_scale,
        scenes=len(results.downstream),
        least_p=least_p(len(results.downstream)),
        floor=results.means[methods[0]]["mean_color_psnr"],
        lpips_notes=_lpips_notes(results),
        floor_warnings=_floor_warnings(results),
        methods_tables=tables.methods_tables(results),
        trainings=results.noise_floor.get("trainings"),
        deltas_tables=tables.deltas_tables(results),
        scenes_table=tables.scenes_table(results),
        training_table=tables.training_table(results),
        costs_table=tables.costs_table(stage_costs(costs), wall) if costs else None,
        wall=wall,
        pause_s=PAUSE_S,
        others={
            kind: (_other_warnings(kind, rows), other_tables(kind, rows))
            for kind, rows in results.others.items()
            if rows
        },
        measured=measured_rows(results),
        ranked_by=results.ranked_by,
        frontier_charts=list(figures.frontier_charts(results)),
        delta_charts=figures.delta_charts(results),
        tuning_charts=list(figures.tuning_charts(results)),
        training_charts=list(figures.training_charts(results)),
        views=views,
        psnr=_json({scene: psnr_by_view(results, scene) for scene in views}),
        truth=TRUTH,
        choices=(TRUTH, *methods),
        left=left,
        right=right,
        links=links,
        outcomes=outcomes(results),
        memo=memo(study),
        decision=results.decision,
        origin=origin(results, brief=brief),
    )


def require_size(text: str, path: Path, max_mb: float) -> float:
    """Size of a page in MB. Raises UserError when it is more than `max_mb`."""
    size_mb = len(text.encode()) / 1e6
    if size_mb > max_mb:
        raise UserError(
            path,
            f"{size_mb:.1f} MB",
            expected=f"at most {max_mb:g} MB",
            fix="lower report.max_side_px or report.quality, or raise report.max_mb",
        )
    return size_mb


def outcomes(results: Results) -> list[tuple[str, str]]:
    """What a run produced of the outputs that every study expects: samples, tuning, measures."""
    outcomes = []
    if results.manifest:
        counts = results.manifest
        samples = f"{counts['train']} for the tuning, {counts['test']} to validate it"
        outcomes.append(("Samples", samples))
    if {"untuned", "tuned", "identity"} <= results.tuning.keys():
        row = {name: results.tuning[name]["psnr"] for name in ("identity", "untuned", "tuned")}
        tuning = (
            f"{counted(results.tuning['steps'], 'step')}; on the internal-eval samples "
            f"{row['identity']:.2f} dB as rendered, {row['untuned']:.2f} dB untuned, "
            f"{row['tuned']:.2f} dB tuned"
        )
        outcomes.append(("Tuning", tuning))
    evaluations = results.evaluations
    views = sum(
        evaluations.of(scene, evaluations.methods[0]).means["views"] for scene in evaluations.scenes
    )
    measures = (
        f"{counted(views, 'target view')} of {counted(len(evaluations.scenes), 'scene')} by "
        f"{counted(len(evaluations.methods), 'method')}; {len(results.downstream)} of the scenes "
        "are downstream"
    )
    outcomes.append(("Measures", measures))
    return outcomes


def _json(value: object) -> Markup:
    """JSON for a script element, which no text in it can end."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def _first_pair(results: Results) -> tuple[str, str]:
    """The methods that the sliders show initially: before and after."""
    subject = results.study.subject
    if subject == PLAIN:
        return PLAIN, TRUTH
    return PLAIN if PLAIN in results.study.methods else TRUTH, subject


def _floor_warnings(results: Results) -> list[str]:
    """Warnings of the study's results that are worse than an image of the mean colour."""
    evaluations = results.evaluations
    means: dict[str, Row] = {
        f"{scene} by {method}": evaluations.of(scene, method).means
        for scene in evaluations.scenes
        for method in evaluations.methods
    }
    return floor_warnings(means)


def _other_warnings(kind: str, rows: Mapping[str, Row]) -> list[str]:
    """The same of captures or static scenes."""
    means: dict[str, Row] = {}
    for name, row in rows.items():
        for key in row:
            if key.endswith("mean_color_psnr"):  # numbers of sets of views have a prefix
                prefix = key.removesuffix("mean_color_psnr")
                of_set = {"psnr": row.get(f"{prefix}psnr"), "mean_color_psnr": row[key]}
                means[f"{kind}/{name} {prefix.rstrip('.')}".strip()] = of_set
    return floor_warnings(means)


def _lpips_notes(results: Results) -> list[str]:
    """Why LPIPS is empty, and why further nets are left out; nothing where all were measured."""
    starts = {"lpips": "LPIPS is empty"}
    starts |= {name: f"{NAMES[name]} is left out" for name in FURTHER}
    notes = {}
    for scene in results.evaluations.scenes:
        means = results.evaluations.of(scene, results.evaluations.methods[0]).means
        for name, start in starts.items():
            if note := means.get(f"{name}_note"):
                notes.setdefault(name, f"{start}: {note}")
    return list(notes.values())
