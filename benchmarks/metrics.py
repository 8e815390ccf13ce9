"""PSNR, SSIM and LPIPS of a whole scene: on the GPU in batches, view by view, and on the CPU.

    python -m benchmarks.metrics [--views 50] [--size 540x960] [--weights FOLDER] [--out FILE]

Images are in memory; times are of measuring only. Without the folder of stage `weights`, LPIPS has
random features, which cost the same.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks import splat_cases as cases
from benchmarks.command_line import launch, size
from stages.quality.config import EvaluateConfig
from stages.quality.evaluation import MeasuredView, Measures, Meter
from stages.quality.keys import MEASURES
from stages.quality.metrics.backbones import BACKBONES
from stages.run.files import write_json

MAX_DIFFERENCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=50)
    parser.add_argument("--on-cpu", type=int, default=4, help="views to measure there too")
    parser.add_argument("--size", type=size, default="540x960", help="width x height, px")
    parser.add_argument("--weights", type=Path, help="features for LPIPS")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    views = [view(k, width, height) for k in range(args.views)]
    with tempfile.TemporaryDirectory() as scratch:
        weights = args.weights or random_weights(Path(scratch))
        meters = {name: Meter.build(EvaluateConfig(device=name), weights) for name in DEVICES}
    batched, in_batches = timed(lambda: whole(meters["cuda"], views))
    single, one_by_one = timed(lambda: [meters["cuda"].measure(one) for one in views])
    few = views[: args.on_cpu]
    on_cpu, slow = timed(lambda: [meters["cpu"].measure(one) for one in few])
    label = f"{width}x{height}"
    rows = [
        cases.row(f"GPU, batches, {label}", batched / len(views), "ms a view"),
        cases.row(f"GPU, view by view, {label}", single / len(views), "ms a view"),
        cases.row(f"CPU, {label}", on_cpu / max(len(few), 1), "ms a view", device="cpu"),
        difference("batches from the CPU", in_batches, slow),
        difference("view by view from the CPU", one_by_one, slow),
    ]
    cases.show(rows)
    cases.write_rows(args.out, rows)


DEVICES = ("cuda", "cpu")


def whole(meter: Meter, views: list[MeasuredView]) -> list[Measures]:
    """Measures of a scene as in stage `evaluate`."""
    return [row for batch in meter.batches(views) for row in meter.measure_all(batch)]


def timed(work: Callable[[], list[Measures]]) -> tuple[float, list[Measures]]:
    """Milliseconds of the second call, and its rows."""
    work()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    rows = work()
    return 1e3 * (time.perf_counter() - begin), rows


def difference(name: str, rows: list[Measures], others: list[Measures]) -> cases.Row:
    """The largest difference of any measure."""
    pairs = zip(rows[: len(others)], others, strict=True)
    largest = max(abs(a[key] - b[key]) for a, b in pairs for key in MEASURES)
    return cases.row(name, largest, "at most", target=MAX_DIFFERENCE) | {"value": largest}


def view(number: int, width: int, height: int) -> MeasuredView:
    """A smooth ground truth and a similar image."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width].astype(np.float32) / 40
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(0, 3, (3, 3))]
    truth = np.stack(waves, axis=-1).astype(np.float32) / 2 + 0.5
    noise = random.normal(0, 0.03, truth.shape)
    image = np.clip(truth + noise, 0, 1).astype(np.float32)
    return MeasuredView(f"{number:06d}", "00", truth, "", image)


def random_weights(folder: Path) -> Path:
    """Features of the right shapes, in the form of stage `weights`."""
    random = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=random) / max(np.prod(shape[1:]), 1) ** 0.5
        for name, shape in BACKBONES["alex"].shapes.items()
    }
    save_file(tensors, folder / "alex.safetensors")
    write_json(folder / "weights.json", {"alex": {"found": True, "sha256": "0" * 64}})
    return folder


if __name__ == "__main__":
    launch(main)
