"""Result folders of captures: `train/`, and one `eval_on_<set>/` per evaluation set."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from stages.quality.config import EvaluateConfig
from stages.quality.evaluation import Measures, Meter
from stages.quality.keys import MEASURED
from stages.quality.metrics.weights import MARKER
from stages.run.artefacts import GAUSSIANS
from stages.run.checkpoint import forget
from stages.run.errors import UserError
from stages.run.files import file_hash, set_hash, whole_folder, write_json, write_tsv
from stages.run.process.parallel import run_all
from stages.run.user_paths import check_apart, check_source, make_target, run_name
from stages.scenes.captures.config import CaptureEvaluateConfig, CaptureTrainConfig
from stages.scenes.captures.eval_registration import nearest, place
from stages.scenes.colmap_lenses import find_model
from stages.scenes.dataset import Dataset, find_photographs, same_images
from stages.scenes.frames import Sim3
from stages.scenes.view import View
from stages.splat.captures.claims import (
    DATASET,
    EVALUATED,
    FRAME,
    TRAINED,
    claim,
    claim_evaluated,
)
from stages.splat.captures.measuring import PoseAlignment, measure
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.training import (
    capture_notes,
    matching_views,
    shrunk_size,
    split,
    train_capture,
)
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.training.fit import Fitted

CALIBRATION_SECTIONS = ("capture_calibrate", "vggt")  # that capture_calibrate reads


def posed_dataset(
    data: Path, result: Path, match_string: str, overrides: Sequence[str | Path]
) -> tuple[Path, bool]:
    """`data` itself when it has a model, else a dataset below `result`, by capture_calibrate.

    Also returns whether that ran now, with the recipes in `overrides` and those of its texts that
    are its own. It runs in a process of its own, since its code is no dependency of the training.
    Raises UserError, before poses are estimated, when `result` cannot be written or holds another
    result.
    """
    check_source(data)
    check_apart(data, result, kept=DATASET)
    if find_model(data) is not None:
        return data, False
    images = find_photographs(data)
    claim(result, data, lambda: frozenset(map(file_hash, images.values())), match_string)
    make_target(result)
    dataset = result / DATASET / data.resolve().name  # the capture keeps its name
    if not dataset.exists():
        command = [sys.executable, "-m", "stages.capture_calibrate", str(data), str(dataset)]
        for item in overrides:
            if isinstance(item, Path):
                command += ["--recipe", str(item)]
            elif item.lstrip("+").partition(".")[0] in CALIBRATION_SECTIONS:
                command += ["-S", item]
        run_all([command], 1)
        return dataset, True
    if not same_images(data, dataset):
        raise UserError(
            dataset,
            f"is no dataset of the images in {data}",
            expected="that of capture_calibrate",
            fix="remove it, or name another folder",
        )
    return dataset, False


def train_result(
    dataset: Dataset,
    match_string: str,
    result: Path,
    capture: CaptureTrainConfig,
    config: TrainConfig,
    meter: Meter,
    overridden: Collection[str] = (),
) -> tuple[dict[str, Any], Fitted]:
    """Train a capture into `result`/train and measure its held-out views; return the scalars.

    Args:
        dataset: the capture.
        match_string: a whole word in the names of the images to train on; empty for all.
        result: folder for the results.
        capture: params of the split and the measuring.
        config: params of the training.
        meter: measures the held-out views.
        overridden: keys of `config` that the command line sets.

    Raises UserError when `result` holds something else, which is not overwritten.
    """
    claim(result, dataset.folder, lambda: dataset.image_hashes, match_string)
    make_target(result)
    dataset.log_notes()
    views = split(dataset.views, capture.test_every, match_string)
    for line in capture_notes(dataset, views, config, "capture_train", overridden):
        print(f"{result}: {line}")
    _demand(meter, views.held_out, config.data_factor)
    resume_as, folder = run_name(result), result / TRAINED
    with whole_folder(folder) as scratch:
        fitted = train_capture(
            dataset, views, config, scratch, match_string=match_string, resume_as=resume_as
        )
    # The trained capture is complete by now, even if measuring it fails.
    means: dict[str, Any] = {}
    if views.held_out:
        backend, _ = choose_backend(config.backend)
        device = "cuda" if backend == "cuda" else "cpu"
        color = CaptureRecord.read(folder).mean_color
        with whole_folder(folder / "held_out") as renders:
            rows, means = measure(
                fitted.gaussians.to(device),
                views.held_out,
                Sim3.identity(),
                renders,
                meter=meter,
                color=color,
                data_factor=config.data_factor,
                alignment=PoseAlignment(capture.align_steps, capture.align_lr),
                backend=backend,
            )
        write_tsv(folder / "held_out.tsv", rows, ["image", *MEASURED])
    scalars = {
        "trained_on": len(views.train),
        "held_out": len(views.held_out),
        "without_pose": len(dataset.without_pose),
        "gaussians": len(fitted.gaussians),
        **means,
    }
    write_json(folder / "metrics.json", scalars)
    forget("captures", resume_as)
    return scalars, fitted


def evaluate_result(
    result: Path, eval_set: Dataset, config: CaptureEvaluateConfig, meter: Meter
) -> dict[str, Any]:
    """Measure a trained capture on another dataset, into `result`/eval_on_<its name>.

    Raises UserError when the dataset's frame cannot be determined, and when no image matches.
    """
    record, folder = CaptureRecord.read(result / TRAINED), result / f"{EVALUATED}{eval_set.name}"
    claim_evaluated(folder, eval_set.folder, lambda: eval_set.image_hashes)
    make_target(result)
    backend, _ = choose_backend(config.backend, "capture_evaluate.backend")
    device = "cuda" if backend == "cuda" else "cpu"
    gaussians = Gaussians.load(result / TRAINED / GAUSSIANS, device)
    eval_set.log_notes()
    placement = place(
        record.train | record.held_out,
        record.sha256,
        record.points,
        {view.name: view.camera for view in eval_set.views},
        {view.name: view.sha256 for view in eval_set.views},
        eval_set.points,
        config.frame,
        eval_set.folder,
    )
    placed = {
        view.name: placement.train_from_eval.apply_camera(view.camera)
        for view in matching_views(eval_set.views, config.match_string)
    }
    chosen = nearest(list(record.train.values()), placed, config.nearest)
    views = [view for view in eval_set.views if view.name in chosen]
    _demand(meter, views, record.data_factor)
    with whole_folder(folder) as folder:
        rows, means = measure(
            gaussians,
            views,
            placement.train_from_eval,
            folder,
            meter=meter,
            color=record.mean_color,
            data_factor=record.data_factor,
            alignment=PoseAlignment(config.align_steps, config.align_lr),
            backend=backend,
        )
        write_tsv(folder / "views.tsv", rows, ["image", *MEASURED])
        scalars = {
            "frame": placement.how,
            "shared_images": placement.shared_images,
            "frame_residual": round(placement.residual, 6),
        }
        write_json(folder / "metrics.json", scalars | means)
        frame = {"train_from_eval": placement.train_from_eval.to_dict()}
        frame["photographs"] = set_hash(eval_set.image_hashes)
        write_json(folder / FRAME, frame)
    return scalars | means


def _demand(meter: Meter, views: Sequence[View], data_factor: int) -> None:
    """Raise UserError for views that are too small to measure."""
    sizes = {view.name: shrunk_size(view.camera, data_factor) for view in views}
    meter.require_sizes(sizes, "lower train.data_factor, or take the views out")


def meter_of(config: EvaluateConfig, weights: Path) -> Meter:
    """The meter of captures, without LPIPS where the folder of its weights is missing."""
    if not (weights / MARKER).is_file() and not config.lpips.required:
        note = f"{weights} is not there; `dvc repro weights` makes it"
        return Meter("cpu", note=note, ssim=config.ssim)
    return Meter.build(config, weights)


def summary(scalars: Measures) -> str:
    """The metrics of a result in one line."""
    if scalars.get("psnr") is None:
        return "no view is held out"
    lpips = "none" if scalars["lpips"] is None else f"{scalars['lpips']:.4f}"
    aligned = scalars["psnr_aligned"]
    at_aligned = "" if aligned is None else f" ({aligned:.2f} dB at aligned poses)"
    return (
        f"{scalars['views']} views, PSNR {scalars['psnr']:.2f} dB{at_aligned}, "
        f"SSIM {scalars['ssim']:.4f}, LPIPS {lpips}"
    )
