"""Target views as they are measured: each with its ground truth and a method's novel views."""

from collections.abc import Iterator
from pathlib import Path

from stages.quality.crops import people_box
from stages.quality.evaluation import LEAST_BOX_PX, MeasuredView
from stages.run.errors import UserError
from stages.scenes.novel_views import read_novel_view
from stages.scenes.scene import Scene


def measured_views(
    scene: Scene, folder: Path, kinds: tuple[str, ...], masks: str
) -> Iterator[MeasuredView]:
    """Every target view of a scene with the novel views of a method in `folder`.

    People are measured apart as `evaluate.masks` says: `auto` where a view has a mask; `people`
    raises UserError for a view without.
    """
    for view in scene.views("target"):
        mask = None if masks == "ignore" else view.mask()
        if masks == "people" and mask is None:
            raise UserError(
                view.image_path,
                "no people mask beside it",
                expected="masks, for evaluate.masks",
                fix="set prepare.masks: true, or evaluate.masks: auto",
            )
        image, valid = view.image()
        if mask is not None and valid is not None:
            mask = mask & valid
        crop = None if mask is None else people_box(mask, LEAST_BOX_PX)
        renders = {kind: read_novel_view(folder, kind, view) for kind in kinds}
        yield MeasuredView(
            view.timestamp,
            view.name,
            image,
            view.sha256,
            mask=mask,
            valid=valid,
            crop=crop,
            **renders,
        )
