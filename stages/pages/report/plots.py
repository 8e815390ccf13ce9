"""Plots for `dvc plots show` and editors: gains by scene, and strips of images."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.pages.config import ReportConfig
from stages.pages.image_urls import size_within
from stages.pages.report.results import Results
from stages.pages.report.views import ranked
from stages.quality.keys import MEASURES
from stages.quality.paired_differences import MEAN
from stages.run.files import write_tsv
from stages.run.methods import PLAIN
from stages.scenes.images import Pixels, resize
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene

_COLUMNS = ["bar", "scene", "method", *MEASURES]
_HEAD_PX = 18
_TRUTH = "photograph"  # as the strips of earlier reports are titled


def write_gains(path: Path, results: Results) -> None:
    """Write differences to the plain splat: one row per method and downstream scene."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for row in results.deltas:
        method, _, reference = row["comparison"].partition("_vs_")
        if reference != PLAIN or row["scene"] == MEAN or row["metric"] not in MEASURES:
            continue
        start = {"scene": row["scene"], "method": method, **dict.fromkeys(MEASURES)}
        start["bar"] = f"{row['scene']} {method}"
        rows.setdefault((method, row["scene"]), start)[row["metric"]] = row["difference"]
    write_tsv(path, rows.values(), _COLUMNS)


def write_strips(
    folder: Path,
    results: Results,
    scenes: Mapping[str, Scene],
    novel_views: Callable[[str, str], Path],
    config: ReportConfig,
) -> None:
    """Write the subject's median view of each scene as one image: ground truth, then every method.

    Args:
        folder: Gets one JPEG per scene.
        results: All numbers.
        scenes: The prepared scenes.
        novel_views: Gives their folder, of a scene and a method.
        config: Quality and largest side of images.
    """
    for name, scene in scenes.items():
        _write_strip(folder / f"{name}.jpg", results, scene, partial(novel_views, name), config)


def _write_strip(
    path: Path, results: Results, scene: Scene, renders: Callable[[str], Path], config: ReportConfig
) -> None:
    views = {(view.timestamp, view.name): view for view in scene.views("target")}
    keys = {rank: key for rank, key, _ in ranked(results, scene.name)}
    view = views[keys.get("median", keys["worst"])]
    size = size_within(view.camera.width, view.camera.height, config.max_side_px)
    images = {_TRUTH: resize(view.pixels(), *size)}
    for method in results.evaluations.methods:
        images[method] = resize(read_novel_view(renders(method), "given", view), *size)
    strip = np.concatenate([_titled(name, image) for name, image in images.items()], axis=1)
    Image.fromarray(strip).save(path, format="JPEG", quality=config.quality)


def _titled(name: str, image: Pixels) -> np.ndarray:
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    head = Image.new("RGB", (levels.shape[1], _HEAD_PX), (255, 255, 255))
    font = ImageFont.load_default(12)
    ImageDraw.Draw(head).text((4, 2), name, font=font, fill=(30, 34, 38))
    return np.concatenate([np.asarray(head), levels])
