"""Views worth a look, with the pictures of every method and their errors as data addresses."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.pages.config import ReportConfig
from stages.pages.report.results import Results
from stages.run import layout
from stages.run.methods import PLAIN
from stages.scenes.images import Pixels, resize
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene, View

TRUTH = "photograph"
# Black to yellow by way of violet and red: rises evenly in lightness, so it also reads in grey.
_HEAT = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10],
                  [252, 255, 164]], np.float32)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One picture of a view. The photograph has neither numbers nor an error."""

    method: str
    source: str  # a data address, as is `error`
    error: str
    numbers: dict[str, float | None]


@dataclass(frozen=True)
class ReportView:
    """One view of a scene by every method."""

    rank: str  # worst, median or best
    timestamp: str
    camera: str
    width: int
    height: int
    gain_db: float | None  # of the study's subject over the plain splat
    pictures: tuple[Picture, ...]


def shown_views(results: Results, scene: str, config: ReportConfig) -> list[ReportView]:
    """The views of a scene where the subject did worst, middling and best."""
    prepared = Scene.read(layout.scene(scene))
    views = {(view.timestamp, view.name): view for view in prepared.views("target")}
    return [
        _shown(results, scene, rank, views[key], gain, config)
        for rank, key, gain in ranked(results, scene)
    ]


def ranked(results: Results, scene: str) -> list[tuple[str, tuple[str, str], float | None]]:
    """(rank, view, gain in dB) of the worst, the median and the best view.

    Ranked by the subject's gain in PSNR over the plain splat; by PSNR where that is the subject.
    """
    subject = results.study.subject
    own = results.evaluations.of(scene, subject).views
    plain = PLAIN if PLAIN in results.evaluations.methods else subject
    base = results.evaluations.of(scene, plain).views
    gains = {view: _psnr(row) - _psnr(base[view]) * (plain != subject) for view, row in own.items()}
    order = sorted(gains, key=lambda view: (gains[view], view))
    places = {"worst": 0, "median": len(order) // 2, "best": len(order) - 1}
    found, seen = [], set()
    for rank, place in places.items():
        if place not in seen:
            seen.add(place)
            gain = None if plain == subject else gains[order[place]]
            found.append((rank, order[place], gain))
    return found


def error_map(picture: Pixels, photograph: Pixels, full_scale: float) -> NDArray[np.uint8]:
    """Mean absolute error of the channels as colour [H, W, 3]; `full_scale` and more is yellow."""
    share = np.abs(picture - photograph).mean(axis=-1) / full_scale
    place = np.clip(share, 0, 1) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    planes = [np.interp(place, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


def data_address(levels: NDArray[np.uint8], quality: int) -> str:
    """An image [H, W, 3] as a `data:` address that a page can hold."""
    packed = io.BytesIO()
    Image.fromarray(levels).save(packed, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def _psnr(row: Any) -> float:
    assert row["psnr"] is not None, "every view has a PSNR"
    return row["psnr"]


def _shown(
    results: Results, scene: str, rank: str, view: View, gain: float | None, config: ReportConfig
) -> ReportView:
    photograph = view.image()
    width, height = fitted(view.camera.width, view.camera.height, config.max_side_px)
    small = resize(photograph, width, height)
    pictures = [Picture(TRUTH, _encoded(small, config.quality), "", {})]
    pictures += _by_methods(results, scene, view, photograph, (width, height), config)
    return ReportView(rank, view.timestamp, view.name, width, height, gain, tuple(pictures))


def _by_methods(
    results: Results, scene: str, view: View, photograph: Pixels, size: tuple[int, int],
    config: ReportConfig,
) -> Iterator[Picture]:  # fmt: skip
    for method in results.evaluations.methods:
        picture = read_novel_view(layout.novel_views(scene, method), "given", view)
        heat = error_map(picture, photograph, config.error_full_scale)
        error = resize(heat.astype(np.float32) / 255, *size)
        numbers = results.evaluations.of(scene, method).views[view.timestamp, view.name]
        yield Picture(
            method,
            _encoded(resize(picture, *size), config.quality),
            _encoded(error, config.quality),
            dict(numbers),
        )


def _encoded(image: Pixels, quality: int) -> str:
    return data_address(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), quality)


def fitted(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """A size of the same shape whose longer side is at most `max_side_px`.

    >>> fitted(940, 1280, 512), fitted(192, 256, 512)
    ((376, 512), (192, 256))
    """
    share = min(1.0, max_side_px / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))
