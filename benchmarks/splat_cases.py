"""Shared by the benchmarks of splats: scenes as views, measures, and rows of results."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.captured_images import Capture
from benchmarks.machine import device_name
from stages.quality.metrics.psnr import psnr
from stages.run.errors import UserError
from stages.run.files import write_json
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.render import render
from stages.splat.training.view_set import TrainView

Row = dict[str, Any]


def use_gpu(otherwise: str = "which this benchmark needs") -> None:
    """Build or load gsplat's kernels. Raises UserError without a GPU."""
    if not torch.cuda.is_available():
        raise UserError("GPU", f"torch {torch.__version__} sees none, {otherwise}")
    choose_backend("cuda")


def split(capture: Capture, every: int, first: int = 0) -> tuple[list[TrainView], list[TrainView]]:
    """Views to train on, and every n-th held out from `first` on."""
    views = [
        TrainView(camera, torch.from_numpy(image.astype(np.float32) / 255))
        for camera, image in zip(capture.cameras, capture.images, strict=True)
    ]
    return [view for k, view in enumerate(views) if k % every != first], views[first::every]


def mean_psnr(gaussians: Gaussians, views: Sequence[TrainView], device: str = "cuda") -> float:
    """Over views, dB."""
    scores = []
    for view in views:
        image = render(gaussians, view.camera, device).rgb
        truth = view.image.to(image.device)
        scores.append(float(psnr(*(x.permute(2, 0, 1)[None] for x in (image, truth)))))
    return statistics.fmean(scores)


def timed_ms(work: Callable[[], object], repeats: int = 50, warmup: int = 10) -> float:
    """Median time between two events on the device around a call, ms."""
    times = []
    for repeat in range(warmup + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        if repeat >= warmup:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def row(name: str, value: float, unit: str, device: str = "cuda", **more: Any) -> Row:
    """One figure of a `cuda` or `cpu` device; `anchor` and `target` may be among the rest."""
    figure = {"name": name, "device": device_name(device), "value": round(value, 4)}
    return figure | {"unit": unit, "anchor": None, "target": None} | more


def write_rows(path: Path | None, rows: list[Row]) -> None:
    """Write the rows, if a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"rows": rows})


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    width = max(len(one["name"]) for one in rows)
    print(f"{'':{width}}{'value':>11} {'unit':14}{'anchor':>9}{'target':>9}")
    for one in rows:
        numbers = ("-" if one[key] is None else f"{one[key]:g}" for key in ("anchor", "target"))
        print(f"{one['name']:{width}}{one['value']:11.5g} {one['unit']:14}", end="")
        quality = (
            f"  {one['psnr_db']:.2f} dB, {one['gaussians']} Gaussians" if "gaussians" in one else ""
        )
        print("".join(f"{number:>9}" for number in numbers) + quality)
    print(rows[0]["device"])
