"""What `dvc plots show` and editors draw of the study: gains by scene, and strips of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.pages.config import ReportConfig
from stages.pages.report.results import Results
from stages.pages.report.views import TRUTH, fitted, ranked
from stages.quality.keys import MEASURES
from stages.quality.paired_differences import MEAN
from stages.run import layout
from stages.run.files import whole_folder, write_tsv
from stages.run.methods import PLAIN
from stages.scenes.images import Pixels, resize
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene

_COLUMNS = ["bar", "scene", "method", *MEASURES]
_HEAD_PX = 18


def write_plots(results: Results, scenes: Sequence[str], config: ReportConfig) -> None:
    """Write metrics/plots/gains.tsv and metrics/report/strips, a strip a scene."""
    write_tsv(layout.gains(), gains(results), _COLUMNS)
    with whole_folder(layout.strips()) as folder:
        for scene in scenes:
            _write_strip(folder / f"{scene}.jpg", results, scene, config)


def gains(results: Results) -> list[dict[str, object]]:
    """Differences to the plain splat: one row a method and downstream scene."""
    found: dict[tuple[str, str], dict[str, object]] = {}
    for row in results.deltas:
        method, _, reference = row["comparison"].partition("_vs_")
        if reference != PLAIN or row["scene"] == MEAN or row["metric"] not in MEASURES:
            continue
        start = {"scene": row["scene"], "method": method, **dict.fromkeys(MEASURES)}
        start["bar"] = f"{row['scene']} {method}"
        found.setdefault((method, row["scene"]), start)[row["metric"]] = row["difference"]
    return list(found.values())


def _write_strip(path: Path, results: Results, scene: str, config: ReportConfig) -> None:
    """The photograph and every method of the view where the subject did middling."""
    prepared = Scene.read(layout.scene(scene))
    views = {(view.timestamp, view.name): view for view in prepared.views("target")}
    chosen = {rank: key for rank, key, _ in ranked(results, scene)}
    view = views[chosen.get("median", chosen["worst"])]
    size = fitted(view.camera.width, view.camera.height, config.max_side_px)
    pictures = {TRUTH: resize(view.image(), *size)}
    for method in results.evaluations.methods:
        picture = read_novel_view(layout.novel_views(scene, method), "given", view)
        pictures[method] = resize(picture, *size)
    strip = np.concatenate([_titled(name, one) for name, one in pictures.items()], axis=1)
    Image.fromarray(strip).save(path, format="JPEG", quality=config.quality)


def _titled(name: str, picture: Pixels) -> np.ndarray:
    levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    head = Image.new("RGB", (levels.shape[1], _HEAD_PX), (255, 255, 255))
    font = ImageFont.load_default(12)
    ImageDraw.Draw(head).text((4, 2), name, font=font, fill=(30, 34, 38))
    return np.concatenate([np.asarray(head), levels])
