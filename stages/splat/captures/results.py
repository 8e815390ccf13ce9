"""Result folders of captures: `train/`, to which evaluations add `eval_on_<set>/`."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from stages.quality.evaluation import Meter
from stages.quality.keys import MEASURED, further_in
from stages.run.checkpoint import forget
from stages.run.errors import UserError
from stages.run.files import file_hash, whole_folder, write_json, write_tsv
from stages.run.notes import unshown
from stages.run.process.parallel import run_all
from stages.run.user_paths import check_apart, check_source, make_target, run_name
from stages.scenes.captures.config import CaptureTrainConfig
from stages.scenes.colmap_lenses import find_model
from stages.scenes.dataset import Dataset, find_photographs, same_images
from stages.scenes.frames import Sim3
from stages.splat.captures.claims import DATASET, TRAINED, claim
from stages.splat.captures.gsplat_stats import write_training_stats
from stages.splat.captures.measuring import PoseAlignment, measure, require_sizes
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.training import capture_notes, split, train_capture
from stages.splat.config import TrainConfig
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
    for line in unshown(capture_notes(dataset, views, config, "capture_train", overridden)):
        print(f"{result}: {line}")
    require_sizes(meter, views.held_out, config.data_factor)
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
        write_tsv(folder / "held_out.tsv", rows, ["image", *MEASURED, *further_in(rows)])
        if meter.gsplat_stats:
            write_training_stats(
                result, folder, means, views.held_out, meter, config.data_factor, backend
            )
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
