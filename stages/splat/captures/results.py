"""Result folders of captures: `train/`, and one `eval_on_<set>/` for each evaluation set."""

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
from stages.splat.captures.training import (
    Alignment,
    CaptureRecord,
    capture_notes,
    measure,
    shrunk_size,
    split,
    train_capture,
)
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.training.fit import Fitted

CALIBRATED_BY = ("capture_calibrate", "vggt")  # sections of capture_calibrate


def with_poses(
    data: Path, result: Path, match_string: str, overrides: Sequence[str]
) -> tuple[Path, bool]:
    """`data` itself when it has a model; else a dataset below `result`, by capture_calibrate.

    And whether that was made now, by what `overrides` say of it.
    In a process of its own: what estimates poses is no input of what trains on them. Raises
    UserError before anything is estimated when `result` may not be written or is another's.
    """
    check_source(data)
    check_apart(data, result, kept=DATASET)
    if find_model(data) is not None:
        return data, False
    photographs = find_photographs(data)
    claim(result, data, lambda: frozenset(map(file_hash, photographs.values())), match_string)
    make_target(result)
    dataset = result / DATASET / data.resolve().name  # the capture keeps its name
    if not dataset.exists():
        command = [sys.executable, "-m", "stages.capture_calibrate", str(data), str(dataset)]
        own = [one for one in overrides if one.lstrip("+").partition(".")[0] in CALIBRATED_BY]
        run_all([command + [word for one in own for word in ("-S", one)]], 1)
        return dataset, True
    if not same_images(data, dataset):
        raise UserError(
            dataset, f"is no dataset of the photographs in {data}",
            expected="what capture_calibrate made of them", fix="remove it, or name another folder",
        )  # fmt: skip
    return dataset, False


def train_result(
    dataset: Dataset, match_string: str, result: Path,
    capture: CaptureTrainConfig, config: TrainConfig, meter: Meter, given: Collection[str] = (),
) -> tuple[dict[str, Any], Fitted]:  # fmt: skip
    """Train a capture into `result`/train and measure its held-out views; return the scalars.

    `given` are the keys of `config` that the command line gave. Raises UserError when `result`
    holds something else; then nothing is overwritten.
    """
    claim(result, dataset.folder, lambda: dataset.photographs, match_string)
    make_target(result)
    dataset.tell()
    chosen = split(dataset.views, capture.test_every, match_string)
    for line in capture_notes(dataset, chosen, config, "capture_train", given):
        print(f"{result}: {line}")
    _demand(meter, chosen.held_out, config.data_factor)
    resume_as, folder = run_name(result), result / TRAINED
    with whole_folder(folder) as scratch:
        fitted = train_capture(
            dataset, chosen, config, scratch, match_string=match_string, resume_as=resume_as
        )
    # What was trained is there by now, whatever measuring it may do.
    means: dict[str, Any] = {}
    if chosen.held_out:
        backend, _ = choose_backend(config.backend)
        device = "cuda" if backend == "cuda" else "cpu"
        color = CaptureRecord.read(folder).mean_color
        with whole_folder(folder / "held_out") as pictures:
            rows, means = measure(
                fitted.gaussians.to(device), chosen.held_out, Sim3.identity(), pictures,
                meter=meter, color=color, data_factor=config.data_factor,
                alignment=Alignment(capture.align_steps, capture.align_lr), backend=backend,
            )  # fmt: skip
        write_tsv(folder / "held_out.tsv", rows, ["image", *MEASURED])
    scalars = {
        "trained_on": len(chosen.train),
        "held_out": len(chosen.held_out),
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

    Raises UserError when the dataset's frame cannot be told.
    """
    facts, folder = CaptureRecord.read(result / TRAINED), result / f"{EVALUATED}{eval_set.name}"
    claim_evaluated(folder, eval_set.folder, lambda: eval_set.photographs)
    make_target(result)
    backend, _ = choose_backend(config.backend)
    device = "cuda" if backend == "cuda" else "cpu"
    gaussians = Gaussians.load(result / TRAINED / GAUSSIANS, device)
    eval_set.tell()
    placement = place(
        facts.train | facts.held_out, facts.sha256, facts.points,
        {view.name: view.camera for view in eval_set.views},
        {view.name: view.sha256 for view in eval_set.views},
        eval_set.points, config.frame, eval_set.folder,
    )  # fmt: skip
    placed = {
        view.name: placement.train_from_eval.apply_camera(view.camera) for view in eval_set.views
    }
    _demand(meter, eval_set.views, facts.data_factor)
    wanted = nearest(list(facts.train.values()), placed, config.nearest)
    views = [view for view in eval_set.views if view.name in wanted]
    with whole_folder(folder) as folder:
        rows, means = measure(
            gaussians, views, placement.train_from_eval, folder,
            meter=meter, color=facts.mean_color, data_factor=facts.data_factor,
            alignment=Alignment(config.align_steps, config.align_lr), backend=backend,
        )  # fmt: skip
        write_tsv(folder / "views.tsv", rows, ["image", *MEASURED])
        told = {
            "frame": placement.how,
            "shared_images": placement.shared_images,
            "frame_residual": round(placement.residual, 6),
        }
        write_json(folder / "metrics.json", told | means)
        frame = {"train_from_eval": placement.train_from_eval.to_dict()}
        frame["photographs"] = set_hash(eval_set.photographs)
        write_json(folder / FRAME, frame)
    return told | means


def _demand(meter: Meter, views: Sequence[View], data_factor: int) -> None:
    """Raise UserError for views that would be too small to measure."""
    sizes = {view.name: shrunk_size(view.camera, data_factor) for view in views}
    meter.require_sizes(sizes, "lower train.data_factor, or take the views out")


def meter_of(config: EvaluateConfig, weights: Path) -> Meter:
    """What captures are measured with: without a folder of LPIPS weights, without LPIPS."""
    if not (weights / MARKER).is_file() and not config.lpips.required:
        return Meter("cpu", note=f"{weights} is not there; `dvc repro weights` makes it")
    return Meter.build(config, weights)


def summary(scalars: Measures) -> str:
    """The held-out numbers of a result in a line."""
    if scalars.get("psnr") is None:
        return "no view is held out"
    lpips = "none" if scalars["lpips"] is None else f"{scalars['lpips']:.4f}"
    aligned = scalars["psnr_aligned"]
    told = "" if aligned is None else f" ({aligned:.2f} dB at aligned poses)"
    return (
        f"{scalars['views']} views, PSNR {scalars['psnr']:.2f} dB{told}, "
        f"SSIM {scalars['ssim']:.4f}, LPIPS {lpips}"
    )
