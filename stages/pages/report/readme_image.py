"""One image for the README: what the subject does to a view, with its people enlarged.

The view is chosen by what the plain splat made of it, never by what a fixer gains there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.pages.report.results import Results, Row
from stages.pages.report.views import TRUTH
from stages.quality.crops import Box, people_box
from stages.run.methods import PLAIN
from stages.scenes.images import Mask, Pixels, resize
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene
from stages.scenes.view import View

_COLUMN_PX = 320
_GAP_PX = 8
_LINE_PX = 22
_INK, _MARK = (30, 34, 38), (255, 208, 0)
_LEAST_BOX_PX = 32


@dataclass(frozen=True, eq=False)
class ChosenView:
    """The view that the README shows."""

    scene: str
    view: View
    whole: bool  # it shows its people whole: their mask touches no border
    rivals: Sequence[tuple[str, str, str]]  # scene, timestamp, camera of all it was chosen among

    @property
    def enlarged(self) -> Box | None:
        """The upper end of the box around its people, as high as wide; None without a mask."""
        mask = self.view.mask()
        box = None if mask is None else people_box(mask, _LEAST_BOX_PX)
        if box is None:
            return None
        rows, columns = box
        height = min(rows.stop - rows.start, columns.stop - columns.start)
        return slice(rows.start, rows.start + height), columns


def write_readme_image(
    path: Path,
    results: Results,
    scenes: Mapping[str, Scene],
    novel_views: Callable[[str, str], Path],
) -> None:
    """Write a JPEG: columns of the ground truth, `none`, the untuned twin and the subject.

    Args:
        path: The file.
        results: All numbers.
        scenes: The prepared scenes, all downstream ones among them.
        novel_views: Gives their folder, of a scene and a method.
    """
    chosen = choose_view(results, scenes)
    subject = results.study.subject
    methods = dict.fromkeys((PLAIN, results.untuned(subject), subject))
    shown = [one for one in methods if one in results.evaluations.methods]
    key = (chosen.view.timestamp, chosen.view.name)
    columns = [_column(TRUTH, "held out of training", chosen.view.pixels(), chosen.enlarged)]
    for method in shown:
        image = read_novel_view(novel_views(chosen.scene, method), "given", chosen.view)
        row = results.evaluations.of(chosen.scene, method).views[key]
        columns.append(_column(method, _numbers(row), image, chosen.enlarged))
    white = np.full((columns[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    spaced = [part for column in columns for part in (column, white)][:-1]
    table = np.concatenate(spaced, axis=1)
    foot = _written(table.shape[1], _caption(results, chosen, shown[-1]))
    sheet = Image.fromarray(np.concatenate([table, foot]))
    sheet.save(path, format="JPEG", quality=90, subsampling=0)


def choose_view(results: Results, scenes: Mapping[str, Scene]) -> ChosenView:
    """Of the downstream views that show all people whole, the one with the plain splat's best PSNR.

    PSNR is of the people where it was measured, else of the whole view. Where no view shows people
    whole, all are taken. Without the plain splat the subject ranks.
    """
    methods = results.evaluations.methods
    plain = PLAIN if PLAIN in methods else results.study.subject
    ranks: dict[tuple[str, str, str], tuple[bool, float]] = {}
    views: dict[tuple[str, str, str], View] = {}
    for scene in results.downstream:
        rows = results.evaluations.of(scene, plain).views
        for view in scenes[scene].views("target"):
            key = (scene, view.timestamp, view.name)
            ranks[key] = (_is_whole(view.mask()), _best(rows[key[1:]], "psnr"))
            views[key] = view
    best = max(ranks, key=lambda key: ranks[key])
    rivals = [key for key, (whole, _) in ranks.items() if whole is ranks[best][0]]
    return ChosenView(best[0], views[best], ranks[best][0], rivals)


def _is_whole(mask: Mask | None) -> bool:
    if mask is None or not mask.any():
        return False
    return not (mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _best(row: Row, metric: str) -> float:
    """Of the people, else of the whole view."""
    value = row.get(f"crop_{metric}")
    return float(row[metric] if value is None else value)


def _numbers(row: Row) -> str:
    name = "people" if row.get("crop_psnr") is not None else "view"
    lpips = "" if row["lpips"] is None else f", LPIPS {_best(row, 'lpips'):.3f}"
    return f"{name}: {_best(row, 'psnr'):.2f} dB{lpips}"


def _caption(results: Results, chosen: ChosenView, subject: str) -> list[str]:
    """Which view this is, why, and how far it is from the usual one."""
    kind = " that show all people whole" if chosen.whole else ""
    lines = [
        f"{chosen.scene}, camera {chosen.view.name}, time {chosen.view.timestamp}. Fixed views are "
        "as they are, at full strength.",
        f"Of the {len(chosen.rivals)} views of downstream scenes{kind}, this is the one that the "
        "plain splat renders best; no fixer's gain decides.",
    ]
    falls = [_fall(results, key, subject) for key in chosen.rivals]
    known = [one for one in falls if one is not None]
    own = _fall(results, (chosen.scene, chosen.view.timestamp, chosen.view.name), subject)
    if subject != PLAIN and own is not None:
        lines.append(
            f"{subject} changes this LPIPS by {own:+.3f} here, and by {median(known):+.3f} in the "
            "median of these views."
        )
    return lines


def _fall(results: Results, key: tuple[str, str, str], subject: str) -> float | None:
    """What the subject changes in a view's LPIPS."""
    rows = [
        results.evaluations.of(key[0], method).views[key[1:]]
        for method in (subject, PLAIN)
        if method in results.evaluations.methods
    ]
    if len(rows) < 2 or any(row["lpips"] is None for row in rows):
        return None
    return _best(rows[0], "lpips") - _best(rows[1], "lpips")


def _column(title: str, numbers: str, image: Pixels, box: Box | None) -> np.ndarray:
    """Title, numbers, the whole image with the box marked, and the box enlarged."""
    height, width = image.shape[:2]
    scale = _COLUMN_PX / width
    whole = Image.fromarray(_levels(resize(image, _COLUMN_PX, round(scale * height))))
    parts = [_written(_COLUMN_PX, [title], 20), _written(_COLUMN_PX, [numbers])]
    if box is None:
        return np.concatenate([*parts, np.asarray(whole)])
    rows, columns = box
    corners = [round(scale * one) for one in (columns.start, rows.start, columns.stop, rows.stop)]
    left, top, right, bottom = corners
    ImageDraw.Draw(whole).rectangle((left, top, right - 1, bottom - 1), outline=_MARK, width=2)
    size = round(_COLUMN_PX * (rows.stop - rows.start) / (columns.stop - columns.start))
    close = Image.fromarray(_levels(image[box])).resize(
        (_COLUMN_PX, size), Image.Resampling.BICUBIC
    )
    gap = np.full((_GAP_PX, _COLUMN_PX, 3), 255, np.uint8)
    return np.concatenate([*parts, np.asarray(whole), gap, np.asarray(close)])


def _levels(image: Pixels) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _written(width: int, lines: Sequence[str], size: int = 16) -> np.ndarray:
    """Lines of text on white, [22 lines + 6, width, 3]."""
    paper = Image.new("RGB", (width, _LINE_PX * len(lines) + 6), (255, 255, 255))
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(size)
    for place, line in enumerate(lines):
        pen.text((2, 2 + place * _LINE_PX), line, font=font, fill=_INK)
    return np.asarray(paper)
