"""The report in its two forms: whole, and small enough for git."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from stages.pages.config import ReportConfig
from stages.pages.report.page import SceneLinks, page
from stages.pages.report.results import Results
from stages.pages.report.views import ReportView, median_view, report_views
from stages.run.provenance import Cost
from stages.scenes.scene import Scene

# Of the images in the brief page, each with this longer side at most.
_BRIEF_BYTES = 1_000_000
_BRIEF_SIDE_PX = 256


def both_pages(
    results: Results,
    scenes: Mapping[str, Scene],
    novel_views: Callable[[str, str], Path],
    links: Mapping[str, SceneLinks],
    costs: Mapping[str, Mapping[str, Cost]],
    confidence: float,
    config: ReportConfig,
) -> tuple[str, str]:
    """The whole page and the brief one.

    Args:
        results: All numbers.
        scenes: The prepared scenes in the order of the pages.
        novel_views: Gives their folder, of a scene and a method.
        links: Files of stage `show`; scenes without a viewer are absent.
        costs: Costs by stage and item; empty if no stage ran in this working copy.
        confidence: Of all intervals, such as 0.95.
        config: Sizes, quality and number of images.
    """
    of = {name: partial(novel_views, name) for name in scenes}
    views = {name: report_views(results, one, of[name], config) for name, one in scenes.items()}
    side = min(_BRIEF_SIDE_PX, config.max_side_px)
    small = config.model_copy(update={"max_side_px": side})
    medians = {name: median_view(results, one, of[name], small) for name, one in scenes.items()}
    full_scale = config.error_full_scale
    return (
        page(results, views, links, costs, confidence, full_scale),
        page(results, _that_fit(medians), {}, {}, confidence, full_scale, brief=True),
    )


def _that_fit(medians: Mapping[str, ReportView]) -> dict[str, list[ReportView]]:
    """The first scenes, as long as the images of all fit into the brief page."""
    few, left = {}, _BRIEF_BYTES
    for scene, view in medians.items():
        left -= sum(len(one.source) for one in view.images)
        if left < 0:
            break
        few[scene] = [view]
    return few
