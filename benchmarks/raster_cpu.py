"""Forward and backward of the CPU rasteriser beside a plain torch one, on one thread.

    python -m benchmarks.raster_cpu [--repeats 31] [--write]

Colours of degree 3 with depth and alpha; times are of the two calls, without the loss between.
`median`, `min`, `torch` and the ratio count processor time, which a busy machine disturbs least;
`wall` is the median by the clock. `--write` keeps the rows in benchmarks/results/raster_cpu.json.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.command_line import launch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from benchmarks import torch_tiles
from benchmarks.machine import device_name
from benchmarks.raster_scenes import DEGREE, blob, room
from stages.run.files import write_json
from stages.splat.raster import rasterization

SCENES = {"blob": blob, "room": room}
CASES = ((2000, 160, 120), (10000, 160, 120), (10000, 256, 192), (30000, 256, 192))
TARGETS_MS = {(2000, 160, 120): 3, (10000, 256, 192): 13, (30000, 256, 192): 30}
PLAIN_REPEATS = 3
HEADER = "{:6}{:>14}{:>11}{:>8}{:>9}{:>10}{:>7}{:>11}"
ROW = "{:6}{:>14}{:11.2f}{:8.2f}{:9.2f}{:10.0f}{:7.0f}{:>11}"
RESULTS = Path(__file__).parent / "results" / "raster_cpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    first = time_first_call()
    print(f"first forward and backward: {first:.1f} s, cold only if the cache is empty")
    titles = ("scene", "case", "median ms", "min ms", "wall ms", "torch ms", "ratio", "target ms")
    print(HEADER.format(*titles))
    rows = [measure(name, case, args.repeats) for name in SCENES for case in CASES]
    if args.write:
        write_json(RESULTS, {"rows": rows})


def measure(name: str, case: tuple[int, int, int], repeats: int) -> dict[str, object]:
    """Time one case, print its line, and return its row."""
    count, width, height = case
    gaussians, views, Ks = SCENES[name](count, width, height)
    check_same_image(gaussians, views[0], Ks[0], (width, height))
    ours, wall = timed(render_ours, gaussians, views, Ks, (width, height), repeats)
    plain, _ = timed(render_plain, gaussians, views, Ks, (width, height), PLAIN_REPEATS)
    target = TARGETS_MS.get(case) if name == "blob" else None
    median, anchor = statistics.median(ours), statistics.median(plain)
    label = f"{count // 1000}k {width}x{height}"
    numbers = (median, min(ours), statistics.median(wall), anchor, anchor / median)
    print(ROW.format(name, label, *numbers, target or "-"), flush=True)
    return {
        "name": f"rasterise forward + backward, {name}, {label}",
        "device": device_name("cpu"),
        "value": round(median, 2),
        "unit": "ms",
        "anchor": round(anchor, 1),
        "target": target,
    }


def check_same_image(
    gaussians: list[Tensor], view: Tensor, K: Tensor, size: tuple[int, int]
) -> None:
    """Both must render the same, or their times do not compare."""
    with torch.no_grad():
        ours, plain = (
            render(gaussians, view, K, size)[0] for render in (render_ours, render_plain)
        )
    difference = (ours - plain).abs().mean().item()
    assert difference < 1e-4, f"the images differ by {difference:.1e} on average"


def render_ours(
    gaussians: list[Tensor], view: Tensor, K: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Image [H, W, 4] and alpha [H, W, 1] by this project."""
    images, alphas, _ = rasterization(
        *gaussians,
        view[None],
        K[None],
        *size,
        sh_degree=DEGREE,
        render_mode="RGB+D",
        backend="cpu",
    )
    return images[0], alphas[0]


def render_plain(
    gaussians: list[Tensor], view: Tensor, K: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The same by torch operators."""
    return torch_tiles.rasterize(*gaussians, view, K, *size)


def timed(
    render: Callable[..., tuple[Tensor, Tensor]],
    gaussians: list[Tensor],
    views: Tensor,
    Ks: Tensor,
    size: tuple[int, int],
    repeats: int,
) -> tuple[list[float], list[float]]:
    """Milliseconds of processor and of wall clock, cycling through the views, after a warm-up."""
    leaves = [part.clone().requires_grad_() for part in gaussians]
    weights = torch.randn(size[1], size[0], 4, generator=torch.Generator().manual_seed(0))
    processor_ms, wall_ms = [], []
    for repeat in range(repeats + 1):
        for leaf in leaves:
            leaf.grad = None
        view, K = views[repeat % len(views)], Ks[repeat % len(Ks)]
        begin = clocks()
        image, alpha = render(leaves, view, K, size)
        rendered = clocks()
        loss = (image * weights).sum() + alpha.mean()
        summed = clocks()
        loss.backward()
        end = clocks()
        spent = [
            1e3 * (d - b + e - s) for b, d, s, e in zip(begin, rendered, summed, end, strict=True)
        ]
        processor_ms.append(spent[0])
        wall_ms.append(spent[1])
    return processor_ms[1:], wall_ms[1:]


def clocks() -> tuple[float, float]:
    """Seconds of processor and of wall clock."""
    return time.process_time(), time.perf_counter()


def time_first_call() -> float:
    """Seconds of compilation, or of loading machine code from the cache."""
    gaussians, views, Ks = blob(100, 32, 32)
    start = time.perf_counter()
    timed(render_ours, gaussians, views, Ks, (32, 32), 0)
    return time.perf_counter() - start


if __name__ == "__main__":
    launch(main)
