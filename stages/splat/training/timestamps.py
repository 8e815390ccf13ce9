"""Training of a dynamic scene, one timestamp at a time: what stage `train` reads and writes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from stages.run.artefacts import FIT
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, read_json, shaped, write_json
from stages.run.process.memory import require_for
from stages.run.process.stopping import Preemption
from stages.run.provenance import cost
from stages.run.user_paths import make_target
from stages.scenes.cameras import Camera
from stages.scenes.images import resize, resize_mask
from stages.scenes.poses.calibration import Calibration, read_calibration
from stages.scenes.scene import Scene
from stages.scenes.sources.name_filter import matching
from stages.scenes.view import View
from stages.splat.config import TrainConfig, mask_notes, notes
from stages.splat.gaussians import Gaussians
from stages.splat.gpu.lock import gpu_lock_released
from stages.splat.raster import choose_backend
from stages.splat.training.evaluation import EvaluationRow
from stages.splat.training.fit import Fitted, fit
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

_LOGGER = logging.getLogger(__name__)


def scene_notes(scene: Scene, config: TrainConfig, entry: str = "train") -> list[str]:
    """Messages on parameters that cannot act on this scene, for before it is trained on."""
    masks = [view.mask_path for view in scene.views("source")]
    by_data = list(mask_notes(config, masks, scene.name))
    if config.warm_start and len(scene.timestamps) == 1:
        by_data.append(("warm_start", f"{scene.name} has one timestamp"))
    return notes(config, entry, by_data=by_data)


def train_in(
    folder: Path,
    scene: Scene,
    calibrated: Path,
    timestamp: str,
    config: TrainConfig,
    warm: Path | None = None,
    preemption: Preemption | None = None,
) -> None:
    """Train one timestamp of a prepared scene into `folder`, fit.json included.

    A warm start that ends far behind its neighbour, whose fit.json lies beside `warm`, has not
    followed the motion: the timestamp is trained again without it.

    Args:
        folder: for the results of this timestamp.
        scene: a prepared scene.
        calibrated: folder of its calibration.
        timestamp: one of the scene's.
        config: section `train`.
        warm: file of the neighbour's Gaussians to start from; None for the sparse points.
        preemption: of the caller, who receives signals for several trainings.
    """
    make_target(folder)
    with cost("train", f"{scene.name}.{timestamp}"):
        fitted = train_timestamp(scene, calibrated, timestamp, config, folder, warm, preemption)
        if warm is not None and _lags(fitted, warm, config, f"{scene.name} {timestamp}"):
            fitted = train_timestamp(scene, calibrated, timestamp, config, folder, None, preemption)
    write_json(folder / FIT, fitted.record())


def _lags(fitted: Fitted, warm: Path, config: TrainConfig, name: str) -> bool:
    """Whether training views are too much worse than those of the neighbour."""
    with shaped(warm.parent / FIT, "evaluations, as train writes them"):
        before = final_psnr(read_json(warm.parent / FIT)["evaluations"])
    after = final_psnr(fitted.evaluations)
    if after >= before - config.warm_tolerance_db:
        return False
    _LOGGER.warning(
        "%s: a warm start reached %.2f dB, its neighbour %.2f dB (train.warm_tolerance_db: %g); "
        "trained again without it",
        name,
        after,
        before,
        config.warm_tolerance_db,
    )
    return True


def final_psnr(evaluations: Sequence[EvaluationRow]) -> float:
    """Mean PSNR of training views at the last step, dB."""
    return max((row["step"], row["psnr"]) for row in evaluations if row["split"] == "train")[1]


def train_timestamp(
    scene: Scene,
    calibrated: Path,
    timestamp: str,
    config: TrainConfig,
    folder: Path,
    warm: Path | None = None,
    preemption: Preemption | None = None,
) -> Fitted:
    """Train one timestamp on its source views; write its results into `folder`.

    These are gaussians.safetensors, point_cloud.ply (with save_ply) and cameras/sparse/0 (learnt
    poses, a COLMAP model). With `warm`, training follows `config.following()`. Poses of method
    `given` are held whatever pose_opt says, because true poses need no correction.

    Args:
        scene: a prepared scene.
        calibrated: folder of its calibration.
        timestamp: one of the scene's.
        config: section `train`.
        folder: for the results.
        warm: file of the neighbour's Gaussians to start from; None for the sparse points.
        preemption: of the caller, who receives signals for several trainings.
    """
    calibration = read_calibration(calibrated)
    if calibration.method == "given":
        config = config.model_copy(update={"pose_opt": False})
    if warm is not None:
        config = config.following()
    sources = calibrated_views(chosen_views(scene, timestamp, config), calibration)
    held_out = sources[:: config.test_every] if config.test_every > 1 else []
    train = [view for view in sources if view not in held_out]
    if not train:
        raise UserError(
            "train.test_every",
            f"{config.test_every} leaves no view to train on",
            expected=f"more than {config.test_every}, or 0 for no hold-out",
        )
    backend, _ = choose_backend(config.backend)
    with gpu_lock_released():  # other threads train while this one reads
        points, colors = calibration.points(timestamp)
        start = Gaussians.load(warm) if warm else None
        views = [train_view(view, calibration, config) for view in train]
        test_views = [train_view(view, calibration, config) for view in held_out]
    trainer = Trainer(views, points, colors, config, backend, start)
    with gpu_lock_released():
        checkpoint = timestamp_checkpoint(scene, calibrated, timestamp, trainer, warm)
    name = f"{scene.name} {timestamp}"
    held = "given poses are held" if calibration.method == "given" else trainer.pose_rates
    _LOGGER.info("%s: %d views, %s, %s", name, len(train), trainer.origin, held)
    fitted = fit(trainer, name, checkpoint, test_views, folder, preemption)
    fitted.write(folder, ply=config.save_ply, suffix=".png")
    return fitted


def require_memory(scene: Scene, config: TrainConfig, at_once: int) -> None:
    """Raise UserError when the images of so many timestamps do not fit into memory."""
    views = chosen_views(scene, scene.timestamps[0], config)
    require_for(
        [(view.camera.width, view.camera.height) for view in views],
        config.data_factor,
        "train.data_factor",
        "set train.data_factor: {factor}, or lower runtime.train.workers",
        at_once,
    )


def chosen_views(scene: Scene, timestamp: str, config: TrainConfig) -> list[View]:
    """Source views of a timestamp whose camera matches `match_string`, by name."""
    views = sorted(scene.views("source", timestamp), key=lambda view: view.name)
    chosen = [view for view in views if matching(view.name, config.match_string)]
    if not chosen:
        names = ", ".join(view.name for view in views)
        raise UserError(
            "train.match_string",
            f"{config.match_string!r} matches no source camera",
            expected=f"a token in one of {names}",
        )
    return chosen


def calibrated_views(views: list[View], calibration: Calibration) -> list[View]:
    """Views whose cameras have a pose; a message names the others."""
    posed = [view for view in views if view.name in calibration.sources]
    if not posed:
        names = ", ".join(view.name for view in views)
        raise UserError(
            calibration.folder,
            f"no pose of {names}",
            expected=f"one of {', '.join(calibration.sources)}",
            fix="run `dvc repro calibrate`",
        )
    if len(posed) < len(views):
        lost = ", ".join(view.name for view in views if view not in posed)
        _LOGGER.warning("not trained on, because no pose is known: %s", lost)
    return posed


def train_view(view: View, calibration: Calibration, config: TrainConfig) -> TrainView:
    """An image at its estimated camera, both shrunk by `data_factor`."""
    camera: Camera = calibration.sources[view.name]
    width, height = (round(side / config.data_factor) for side in (camera.width, camera.height))
    pixels, valid = view.image()
    image = torch.from_numpy(resize(pixels, width, height).copy())
    mask = None
    if config.masks and view.mask_path is not None:
        small = resize(view.mask()[..., None].astype("float32"), width, height)[..., 0]
        mask = torch.from_numpy(small >= 0.5)
        if not mask.any():
            raise UserError(
                view.mask_path,
                "no pixel counts",
                expected="people in it, for train.masks",
                fix="set train.masks: false, or take this camera out of source_cameras",
            )
    if valid is not None:
        resized_valid = torch.from_numpy(resize_mask(valid, width, height))
        mask = resized_valid if mask is None else mask & resized_valid
    covariance = None
    if config.pose_opt and config.pose_opt_lr == "auto":
        covariance = calibration.pose_covariance.get(view.name)
    return TrainView(camera.resized(width, height), image, mask, pose_covariance=covariance)


def timestamp_checkpoint(
    scene: Scene,
    calibrated: Path,
    timestamp: str,
    trainer: Trainer,
    warm: Path | None,
) -> Checkpoint:
    """The resume state of one timestamp, keyed by its params and the content of its inputs."""
    inputs = [folder_hash(scene.folder / "frames" / timestamp), folder_hash(calibrated)]
    inputs += [file_hash(warm)] if warm else []
    return Checkpoint("train", scene.name, timestamp, trainer.fingerprint(), *inputs)


def merge_reports(folder: Path, timestamps: Sequence[str]) -> tuple[dict, list[dict]]:
    """Scalars of a scene (means over its timestamps) and its curve rows by timestamp."""
    reports = {timestamp: read_json(folder / timestamp / FIT) for timestamp in timestamps}
    rows = [
        {"timestamp": timestamp, **row}
        for timestamp, report in reports.items()
        for row in report["curve"]
    ]
    finals: dict[str, list[float]] = {}
    steps = 0
    for report in reports.values():
        last = max(row["step"] for row in report["evaluations"])
        steps = max(steps, last)
        for row in report["evaluations"]:
            if row["step"] == last:
                for key in ("psnr", "ssim"):
                    finals.setdefault(f"{row['split']}_{key}", []).append(row[key])
                if row["split"] == "train":
                    finals.setdefault("gaussians", []).append(row["gaussians"])
    scalars = {key: round(sum(values) / len(values), 5) for key, values in finals.items()}
    return {"steps": steps, "timestamps": len(reports), **scalars}, rows
