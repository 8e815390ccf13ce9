"""Forward and backward of the CPU rasteriser beside a plain torch one, on one thread.

    python -m benchmarks.raster_cpu [--repeats 31] [--write]

Colours of degree 3 with depth and alpha. Times are of the two calls alone, without the loss.
`--write` keeps the rows in benchmarks/results/raster_cpu.json.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from benchmarks import torch_tiles
from benchmarks.raster_scenes import DEGREE, blob, room
from stages.run.files import write_json
from stages.splat.raster import rasterization

SCENES = {"blob": blob, "room": room}
CASES = ((2000, 160, 120), (10000, 160, 120), (10000, 256, 192), (30000, 256, 192))
TARGETS_MS = {(2000, 160, 120): 3.0, (10000, 256, 192): 13.0, (30000, 256, 192): 30.0}
PLAIN_REPEATS = 3
RESULTS = Path(__file__).parent / "results" / "raster_cpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    first = time_first_call()
    print(f"first call, forward and backward: {first:.1f} s (cold only when nothing is cached)")
    print(
        f"{'scene':6}{'case':>16}{'median ms':>11}{'min ms':>8}{'torch ms':>10}{'ratio':>7}", end=""
    )
    print(f"{'target ms':>11}{'difference':>12}")
    rows = []
    for name in SCENES:
        for case in CASES:
            rows.append(measure(name, case, given.repeats))
    if given.write:
        write_json(RESULTS, {"rows": rows})


def measure(name: str, case: tuple[int, int, int], repeats: int) -> dict[str, object]:
    """Time one case, print its line, and return its row."""
    count, width, height = case
    gaussians, views, Ks = SCENES[name](count, width, height)
    size = (width, height)
    ours = timed(draw_ours, gaussians, views, Ks, size, repeats)
    plain = timed(draw_plain, gaussians, views, Ks, size, PLAIN_REPEATS)
    with torch.no_grad():
        pictures = [draw(gaussians, views[0], Ks[0], size)[0] for draw in (draw_ours, draw_plain)]
    difference = (pictures[0] - pictures[1]).abs().mean().item()
    target = TARGETS_MS.get(case) if name == "blob" else None
    median, anchor = statistics.median(ours), statistics.median(plain)
    label = f"{count // 1000}k {width}x{height}"
    print(
        f"{name:6}{label:>16}{median:11.2f}{min(ours):8.2f}{anchor:10.0f}{anchor / median:7.0f}"
        f"{target or '-':>11}{difference:12.1e}",
        flush=True,
    )
    return {
        "name": f"rasterise forward + backward, {name}, {label}",
        "device": processor(),
        "value": round(median, 2),
        "unit": "ms",
        "anchor": round(anchor, 1),
        "target": target,
    }


def draw_ours(
    gaussians: list[Tensor], view: Tensor, K: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Image [H, W, 4] and alpha [H, W, 1] by this project."""
    images, alphas, _ = rasterization(
        *gaussians, view[None], K[None], *size, sh_degree=DEGREE, render_mode="RGB+D",
        backend="cpu",
    )  # fmt: skip
    return images[0], alphas[0]


def draw_plain(
    gaussians: list[Tensor], view: Tensor, K: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The same by torch operators."""
    return torch_tiles.rasterize(*gaussians, view, K, *size)


def timed(
    draw: Callable[..., tuple[Tensor, Tensor]], gaussians: list[Tensor], views: Tensor, Ks: Tensor,
    size: tuple[int, int], repeats: int,
) -> list[float]:  # fmt: skip
    """Milliseconds of forward and backward, the views in turn; one call more warms up."""
    leaves = [part.clone().requires_grad_() for part in gaussians]
    weights = torch.randn(size[1], size[0], 4, generator=torch.Generator().manual_seed(0))
    found = []
    for repeat in range(repeats + 1):
        for leaf in leaves:
            leaf.grad = None
        view, K = views[repeat % len(views)], Ks[repeat % len(Ks)]
        start = time.perf_counter()
        image, alpha = draw(leaves, view, K, size)
        drawn = time.perf_counter()
        loss = (image * weights).sum() + alpha.mean()
        summed = time.perf_counter()
        loss.backward()
        found.append(1e3 * (drawn - start + time.perf_counter() - summed))
    return found[1:]


def time_first_call() -> float:
    """Seconds of import and compilation, or of loading what was compiled before."""
    start = time.perf_counter()
    gaussians, views, Ks = blob(100, 32, 32)
    timed(draw_ours, gaussians, views, Ks, (32, 32), 1)
    return time.perf_counter() - start


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, 1 thread" if names else platform.processor()


if __name__ == "__main__":
    main()
