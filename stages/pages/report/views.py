"""Views for the report: the images of every method and their errors, as data URLs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from stages.pages.config import ReportConfig
from stages.pages.image_urls import image_url, size_within
from stages.pages.report.results import Results
from stages.run.methods import PLAIN
from stages.scenes.images import resize
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene
from stages.scenes.view import View

TRUTH = "ground truth"


@dataclass(frozen=True)
class ReportImage:
    """One image of a view. The ground truth has no measures."""

    method: str
    source: str  # a data URL
    measures: dict[str, float | None]


@dataclass(frozen=True)
class ReportView:
    """One view of a scene by every method."""

    rank: str  # worst, median, best, or empty for one that is so by another pair of methods
    timestamp: str
    camera: str
    width: int
    height: int
    gain_db: float | None  # of the study's subject over the plain splat
    images: tuple[ReportImage, ...]


def report_views(
    results: Results, scene: Scene, renders: Callable[[str], Path], config: ReportConfig
) -> list[ReportView]:
    """The worst, median and best view of a scene, first of the headline, then of any two methods.

    At most `config.max_views`; `renders` gives a method's folder.
    """
    views = {(view.timestamp, view.name): view for view in scene.views("target")}
    chosen = {key: (rank, gain) for rank, key, gain in ranked(results, scene.name)}
    for key in _of_pairs(results, scene.name):
        chosen.setdefault(key, ("", None))
    return [
        _report_view(results, scene.name, renders, rank, views[key], gain, config)
        for key, (rank, gain) in list(chosen.items())[: config.max_views]
    ]


def median_view(
    results: Results, scene: Scene, renders: Callable[[str], Path], config: ReportConfig
) -> ReportView:
    """The headline's median view of a scene, as `report_views` has it; of two views the worst."""
    views = {(view.timestamp, view.name): view for view in scene.views("target")}
    by_rank = {rank: (key, gain) for rank, key, gain in ranked(results, scene.name)}
    rank = "median" if "median" in by_rank else "worst"
    key, gain = by_rank[rank]
    return _report_view(results, scene.name, renders, rank, views[key], gain, config)


def psnr_by_view(results: Results, scene: str) -> list[dict[str, Any]]:
    """Every view of a scene with the PSNR of every method, by which the page ranks views."""
    evaluations = results.evaluations
    by_method = {method: evaluations.of(scene, method).views for method in evaluations.methods}
    return [
        {
            "view": f"{timestamp}/{camera}",
            "psnr": {
                method: _psnr(views[timestamp, camera]) for method, views in by_method.items()
            },
        }
        for timestamp, camera in next(iter(by_method.values()))
    ]


def ranked(results: Results, scene: str) -> list[tuple[str, tuple[str, str], float | None]]:
    """(rank, view, gain in dB) of the worst, the median and the best view.

    Ranked by the gain in PSNR over the plain splat of `results.ranked_by`; by PSNR if that is the
    plain splat.
    """
    subject = results.ranked_by
    own = results.evaluations.of(scene, subject).views
    plain = PLAIN if PLAIN in results.evaluations.methods else subject
    base = results.evaluations.of(scene, plain).views
    gains = {view: _psnr(row) - _psnr(base[view]) * (plain != subject) for view, row in own.items()}
    order = sorted(gains, key=lambda view: (gains[view], view))
    return [
        (rank, order[index], None if plain == subject else gains[order[index]])
        for index, rank in _ranks(len(order)).items()
    ]


def _ranks(count: int) -> dict[int, str]:
    """Names of places in an ascending order; a single view is the worst only.

    >>> _ranks(5), _ranks(2)
    ({0: 'worst', 2: 'median', 4: 'best'}, {0: 'worst', 1: 'best'})
    """
    ranks: dict[int, str] = {}
    for rank, place in (("worst", 0), ("best", count - 1), ("median", count // 2)):
        ranks.setdefault(place, rank)
    return dict(sorted(ranks.items()))


def _of_pairs(results: Results, scene: str) -> Iterator[tuple[str, str]]:
    """The worst, median and best views by the difference of any two methods' PSNR."""
    evaluations = results.evaluations
    for pair in combinations(evaluations.methods, 2):
        before, after = (evaluations.of(scene, method).views for method in pair)
        gains = {view: _psnr(row) - _psnr(before[view]) for view, row in after.items()}
        order = sorted(gains, key=lambda view: (gains[view], view))
        yield from (order[place] for place in _ranks(len(order)))


def _psnr(row: Any) -> float:
    assert row["psnr"] is not None, "every view has a PSNR"
    return row["psnr"]


def _report_view(
    results: Results,
    scene: str,
    renders: Callable[[str], Path],
    rank: str,
    view: View,
    gain: float | None,
    config: ReportConfig,
) -> ReportView:
    truth = view.pixels()
    width, height = size_within(view.camera.width, view.camera.height, config.max_side_px)
    small = resize(truth, width, height)
    images = [ReportImage(TRUTH, image_url(small, config.quality), {})]
    images += _by_method(results, scene, renders, view, (width, height), config)
    return ReportView(rank, view.timestamp, view.name, width, height, gain, tuple(images))


def _by_method(
    results: Results,
    scene: str,
    renders: Callable[[str], Path],
    view: View,
    size: tuple[int, int],
    config: ReportConfig,
) -> Iterator[ReportImage]:
    for method in results.evaluations.methods:
        image = read_novel_view(renders(method), "given", view)
        measures = results.evaluations.of(scene, method).views[view.timestamp, view.name]
        yield ReportImage(
            method,
            image_url(resize(image, *size), config.quality),
            dict(measures),
        )
