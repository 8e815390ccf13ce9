"""What was evaluated of trained Gaussians: views, their cameras, stored renders and measures.

It is read from the folders that the evaluations wrote, so that a method measured later is measured
on the same views, at the same poses and by the same protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from stages.quality.evaluation import Measures, Meter, protocol
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, set_hash, shaped
from stages.scenes.cameras import Camera
from stages.scenes.captures.config import CaptureEvaluateConfig, CaptureTrainConfig
from stages.scenes.dataset import Dataset
from stages.scenes.frames import Sim3
from stages.scenes.images import BLACK, Color, Mask, Pixels, read_image, read_mask
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.input_folders import EVAL
from stages.scenes.static.shared_folder import SharedFolder
from stages.scenes.view import View
from stages.splat.captures.claims import EVALUATED, FRAME, TRAINED
from stages.splat.captures.measuring import (
    ALIGNED,
    GIVEN,
    MASKS,
    PoseAlignment,
    mask_file,
    render_file,
)
from stages.splat.captures.training import shrunk, shrunk_camera
from stages.splat.captures.training_views import TrainingViews

HELD_OUT = "held_out"
_METRICS = "metrics.json"
_AGAIN = "evaluate the result again"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """An evaluation of plain Gaussians."""

    name: str  # such as held_out or eval_on_room
    views: tuple[View, ...]
    cameras: Mapping[str, Camera]  # by view, in the frame of the Gaussians, of the renders' size
    files: Mapping[str, str]  # by view, the render's path in the folder of each kind
    folders: Mapping[str, Path]  # of the renders, by kind: `given`, and perhaps `aligned`
    means: Measures
    masks: str  # how the protocol calls them
    data_factor: int = 1  # by which images are shrunk
    background: Color = BLACK  # under alpha
    mask_paths: Mapping[str, Path] = field(default_factory=dict)  # of masked measures, by view
    alignment: PoseAlignment | None = None
    quantised: bool = False  # whether renders are measured as stored, in 8 bits

    @property
    def image_hashes(self) -> frozenset[str]:
        """SHA-256 of the ground truth."""
        return frozenset(view.sha256 for view in self.views)

    def protocol(self, meter: Meter) -> str:
        """The protocol of other renders of these views by this meter."""
        sizes = {f"{one.width}x{one.height}" for one in self.cameras.values()}
        return protocol(
            {f"/{view.name}": view.sha256 for view in self.views},
            "+".join(sorted(sizes)),
            meter.lpips_name,
            self.masks,
            meter.ssim,
        )

    def truth(self, view: View) -> tuple[Pixels, Mask | None]:
        """Ground truth [H, W, 3] of a view and its valid pixels [H, W], None when all are."""
        _, image, valid = shrunk(view, self.data_factor, self.background)
        return image, valid

    def mask(self, view: View, valid: Mask | None) -> Mask | None:
        """The pixels [H, W] of a view's masked measures, of the `valid` ones; None for none."""
        path = self.mask_paths.get(view.name)
        if path is None:
            return valid
        return read_mask(path) if valid is None else read_mask(path) & valid

    def renders(self, view: View) -> dict[str, Pixels]:
        """The stored renders [H, W, 3] of a view by kind."""
        file = self.files[view.name]
        return {kind: read_image(folder / file) for kind, folder in self.folders.items()}

    def check(self) -> "Evaluated":
        """Itself. Raises UserError when a render is missing, or a number of views differs."""
        for kind, folder in self.folders.items():
            missing = [file for file in self.files.values() if not (folder / file).is_file()]
            if missing:
                got = f"no {kind} render of {len(missing)} of {len(self.files)} views"
                raise UserError(folder / missing[0], got, expected="a render of each", fix=_AGAIN)
        if self.means["views"] != len(self.views):
            raise UserError(
                next(iter(self.folders.values())),
                f"{len(self.views)} renders, and measures of {self.means['views']}",
                expected="renders of one evaluation",
                fix=_AGAIN,
            )
        return self


def held_out_views(
    result: Path, dataset: Dataset, training: TrainingViews, config: CaptureTrainConfig
) -> Evaluated:
    """The held-out views of a capture. Raises UserError when none is held out."""
    trained, record = result / TRAINED, training.record
    if not record.held_out:
        raise UserError(
            trained,
            "no view is held out",
            expected="held-out views, or an evaluation set",
            fix="name EVAL_DIR, or train again with capture_train.test_every",
        )
    views = tuple(view for view in dataset.views if view.name in record.held_out)
    return _of_capture(
        HELD_OUT, views, Sim3.identity(), training, trained / HELD_OUT, trained / _METRICS, config
    )


def views_of_set(
    result: Path, eval_set: Dataset, training: TrainingViews, config: CaptureEvaluateConfig
) -> Evaluated:
    """The views of an evaluation set that were measured.

    Raises UserError when the result was not evaluated on these images.
    """
    folder = result / f"{EVALUATED}{eval_set.name}"
    if not (folder / FRAME).is_file():
        raise UserError(
            folder,
            "not evaluated on this set yet",
            expected=f"{FRAME} of capture_evaluate",
            fix=f"python -m stages.capture_evaluate {result} {eval_set.folder}",
        )
    frame = read_json(folder / FRAME)
    measured, ours = frame.get("photographs", ""), set_hash(eval_set.image_hashes)
    if measured != ours:
        raise UserError(
            folder,
            f"was measured on other images ({measured[:8]}) than those of {eval_set.folder} "
            f"({ours[:8]})",
            expected="the evaluation set as it was measured",
            fix=_AGAIN,
        )
    with shaped(folder / FRAME, "what capture_evaluate writes", _AGAIN):
        train_from_eval = Sim3.from_dict(frame["train_from_eval"])
    names = {row["image"] for row in read_tsv(folder / "views.tsv")}
    views = tuple(view for view in eval_set.views if view.name in names)
    return _of_capture(
        folder.name, views, train_from_eval, training, folder, folder / _METRICS, config
    )


def eval_frames(shared: SharedFolder, camera: str, static: StaticConfig, result: Path) -> Evaluated:
    """The eval frames of a static scene that were measured of one kind of camera's Gaussians.

    Raises UserError when they were not measured.
    """
    folder = result / f"{EVALUATED}{EVAL}"
    if not (folder / _METRICS).is_file():
        raise UserError(
            folder,
            "not evaluated yet",
            expected=f"{_METRICS} of static_evaluate",
            fix=f"run static_evaluate --camera {camera} for this scene first",
        )
    renders = folder / "renders"
    views, files = [], {}
    for view in Dataset.read(shared.subset(EVAL)).views:
        file = PurePosixPath(view.name).with_suffix(".png").as_posix()
        if (renders / file).is_file():
            views.append(view)
            files[view.name] = file
    means = read_json(folder / _METRICS)
    with shaped(folder / _METRICS, "the measures of a static scene", _AGAIN):
        masks = _masks_of(means)
    own = folder / MASKS
    return Evaluated(
        folder.name,
        tuple(views),
        {view.name: view.camera for view in views},
        files,
        {GIVEN: renders},
        means,
        masks,
        mask_paths={
            view.name: own / files[view.name] if own.is_dir() else shared.mask(camera, view.name)
            for view in views
        },
        quantised=True,
    ).check()


def _masks_of(means: Measures) -> str:
    """How the protocol of an evaluation calls its masks."""
    return str(means["protocol"]).partition(", masks ")[2].partition(", ssim ")[0]


def _of_capture(
    name: str,
    views: tuple[View, ...],
    train_from_views: Sim3,
    training: TrainingViews,
    folder: Path,
    metrics: Path,
    config: CaptureTrainConfig | CaptureEvaluateConfig,
) -> Evaluated:
    means, data_factor = read_json(metrics), training.record.data_factor
    with shaped(metrics, "the measures of a capture", _AGAIN):
        kinds = [GIVEN] if means["psnr_aligned"] is None else [GIVEN, ALIGNED]
        masks = _masks_of(means)
    cameras = {
        view.name: train_from_views.apply_camera(shrunk_camera(view.camera, data_factor))
        for view in views
    }
    return Evaluated(
        name,
        views,
        cameras,
        {name: render_file(name) for name in cameras},
        {kind: folder / kind for kind in kinds},
        means,
        masks,
        data_factor,
        training.background,
        {
            view.name: path
            for view in views
            if (path := folder / MASKS / mask_file(view.name)).is_file()
        },
        alignment=PoseAlignment(config.align_steps, config.align_lr),
    ).check()
