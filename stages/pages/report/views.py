"""Views for the report: the images of every method and their errors, as data URLs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.pages.config import ReportConfig
from stages.pages.image_urls import image_url, size_within
from stages.pages.report.results import Results
from stages.run.methods import PLAIN
from stages.scenes.images import Pixels, resize
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene
from stages.scenes.view import View

TRUTH = "ground truth"
# Black, violet, red, yellow: lightness rises evenly, so that it also reads in grey.
_HEAT = np.array(
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]],
    np.float32,
)


@dataclass(frozen=True)
class ReportImage:
    """One image of a view. The ground truth has neither measures nor an error."""

    method: str
    source: str  # a data URL, as is `error`
    error: str
    measures: dict[str, float | None]


@dataclass(frozen=True)
class ReportView:
    """One view of a scene by every method."""

    rank: str  # worst, median or best
    timestamp: str
    camera: str
    width: int
    height: int
    gain_db: float | None  # of the study's subject over the plain splat
    images: tuple[ReportImage, ...]


def report_views(
    results: Results, scene: Scene, renders: Callable[[str], Path], config: ReportConfig
) -> list[ReportView]:
    """The worst, median and best view of a scene; `renders` gives a method's folder."""
    views = {(view.timestamp, view.name): view for view in scene.views("target")}
    return [
        _report_view(results, scene.name, renders, rank, views[key], gain, config)
        for rank, key, gain in ranked(results, scene.name)
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
    indices = {"worst": 0, "median": len(order) // 2, "best": len(order) - 1}
    ranks: dict[int, str] = {}
    for rank, index in indices.items():
        ranks.setdefault(index, rank)  # a single view is the worst only
    return [
        (rank, order[index], None if plain == subject else gains[order[index]])
        for index, rank in ranks.items()
    ]


def error_map(image: Pixels, truth: Pixels, full_scale: float) -> NDArray[np.uint8]:
    """Mean absolute error over channels as colour [H, W, 3]; yellow from `full_scale` on."""
    share = np.abs(image - truth).mean(axis=-1) / full_scale
    position = np.clip(share, 0, 1) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    planes = [np.interp(position, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


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
    images = [ReportImage(TRUTH, image_url(small, config.quality), "", {})]
    images += _by_method(results, scene, renders, view, truth, (width, height), config)
    return ReportView(rank, view.timestamp, view.name, width, height, gain, tuple(images))


def _by_method(
    results: Results,
    scene: str,
    renders: Callable[[str], Path],
    view: View,
    truth: Pixels,
    size: tuple[int, int],
    config: ReportConfig,
) -> Iterator[ReportImage]:
    for method in results.evaluations.methods:
        image = read_novel_view(renders(method), "given", view)
        heat = error_map(image, truth, config.error_full_scale)
        error = resize(heat.astype(np.float32) / 255, *size)
        measures = results.evaluations.of(scene, method).views[view.timestamp, view.name]
        yield ReportImage(
            method,
            image_url(resize(image, *size), config.quality),
            image_url(error, config.quality),
            dict(measures),
        )
