"""Target views by the mean of several trainings' renders: method `none-mean`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.quality.evaluation import Image, MeasuredView
from stages.scenes.novel_views import KINDS, read_kinds
from stages.scenes.scene import Scene
from stages.splat.views.measured_views import measured_views


def averaged_views(scene: Scene, folders: Sequence[Path], masks: str) -> Iterator[MeasuredView]:
    """Every target view of a scene with the pixel mean of the novel views in `folders`.

    A kind that a folder lacks is left out. Raises UserError for a folder without novel views.
    """
    known = [read_kinds(folder) for folder in folders]
    kinds = tuple(kind for kind in KINDS if all(kind in one for one in known))
    every = (measured_views(scene, folder, kinds, masks) for folder in folders)
    for views in zip(*every, strict=True):
        means = {kind: mean_image([getattr(view, kind) for view in views]) for kind in kinds}
        yield replace(views[0], **means)


def mean_image(images: Sequence[Image]) -> Image:
    """The mean [H, W, 3] in 8 bits, as the renders of every method are kept.

    >>> mean_image([np.full((1, 1, 3), 0.2), np.full((1, 1, 3), 0.6)]).round(4)
    array([[[0.4, 0.4, 0.4]]], dtype=float32)
    """
    levels = np.rint(255 * np.stack(images))  # whole numbers, so that ties are exact
    return (np.rint(levels.mean(axis=0, dtype=np.float64)) / 255).astype(np.float32)
