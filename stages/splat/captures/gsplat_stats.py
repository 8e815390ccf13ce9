"""Metrics in the files of gsplat's trainer, `stats/val_step2999.json`, for scripts that read them.

Steps in names count from 0, as gsplat's do. `ellipse_time` is seconds per rendered view, `num_GS`
the number of Gaussians; masked measures have DyCheck's names. A measure without a value is left
out.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.quality.evaluation import Meter
from stages.quality.keys import MASKED, MEASURES
from stages.run.artefacts import FIT, GAUSSIANS
from stages.run.files import read_json, write_json
from stages.scenes.cameras import Camera
from stages.scenes.frames import Sim3
from stages.scenes.view import View
from stages.splat.captures.claims import STATS
from stages.splat.captures.measuring import PoseAlignment, measure
from stages.splat.captures.trained import open_file
from stages.splat.captures.training import shrunk_camera
from stages.splat.gaussians import Gaussians
from stages.splat.render import render

_TIMED_VIEWS = 8


def write_stats(
    folder: Path,
    step: int,
    means: Mapping[str, Any],
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    backend: str,
) -> None:
    """Write `folder`/stats/val_step<step - 1>.json.

    Args:
        folder: of the evaluation, or of the whole result.
        step: training steps done; 0 where they are unknown.
        means: the measures.
        gaussians: on the device of `backend`.
        cameras: in the world frame, as they were measured; some are rendered for the time.
        backend: cuda or cpu.
    """
    names = (*MEASURES, *MASKED)
    stats = {name: means[name] for name in names if means.get(name) is not None}
    stats["ellipse_time"] = _seconds_per_view(gaussians, cameras, backend)
    stats["num_GS"] = len(gaussians)
    write_json(_file(folder, step), stats)


def write_training_stats(
    result: Path,
    trained: Path,
    means: Mapping[str, Any],
    views: Sequence[View],
    meter: Meter,
    data_factor: int,
    backend: str,
) -> None:
    """Write the files of the last and all earlier evaluations of a training.

    Of an earlier step whose Gaussians were kept (save_steps, ply_steps) all measures are taken;
    else PSNR and SSIM are those of fit.json.

    Args:
        result: folder of the result.
        trained: its folder of the training.
        means: the last measures.
        views: the held-out views.
        meter: measures them.
        data_factor: by which images are shrunk.
        backend: cuda or cpu.
    """
    for old in (result / STATS).glob("val_step*.json"):
        old.unlink()
    cameras = [shrunk_camera(view.camera, data_factor) for view in views]
    rows = [row for row in read_json(trained / FIT)["evaluations"] if row["split"] == "test"]
    last = max((row["step"] for row in rows), default=0)
    for row in rows:
        step = row["step"]
        kept = None if step == last else next(_kept(trained, step), None)
        if step != last and kept is None:
            stats = {"psnr": row["psnr"], "ssim": row["ssim"], "num_GS": row["gaussians"]}
            write_json(_file(result, step), stats)
            continue
        path = trained / GAUSSIANS if kept is None else kept
        gaussians = open_file(path, trained).to("cuda" if backend == "cuda" else "cpu")
        at_step = means
        if kept is not None:
            at_step = _measured(gaussians, views, meter, data_factor, backend)
        write_stats(result, step, at_step, gaussians, cameras, backend)


def _file(folder: Path, step: int) -> Path:
    return folder / STATS / f"val_step{max(step - 1, 0):04d}.json"


def _kept(trained: Path, step: int) -> Iterator[Path]:
    """Files of the Gaussians of a step that exist."""
    names = (f"gaussians_{step}.safetensors", f"point_cloud_{step}.ply")
    return (trained / name for name in names if (trained / name).is_file())


def _measured(
    gaussians: Gaussians, views: Sequence[View], meter: Meter, data_factor: int, backend: str
) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as renders:
        return measure(
            gaussians,
            views,
            Sim3.identity(),
            Path(renders),
            meter=meter,
            color=np.zeros(3),
            data_factor=data_factor,
            alignment=PoseAlignment(0, 0.0),
            backend=backend,
        )[1]


def _seconds_per_view(gaussians: Gaussians, cameras: Sequence[Camera], backend: str) -> float:
    cameras = cameras[:_TIMED_VIEWS]
    render(gaussians, cameras[0], backend)  # compiles kernels
    start = time.perf_counter()
    for camera in cameras:
        render(gaussians, camera, backend).rgb.cpu()
    return round((time.perf_counter() - start) / len(cameras), 6)
