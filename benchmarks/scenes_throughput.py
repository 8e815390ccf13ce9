"""Many small scenes: steps a second over all of them, one after the other and side by side.

    python -m benchmarks.scenes_throughput [--scenes 20] [--steps 1500] [--lanes 2 4 8] [--out FILE]

Each scene is one moment of a rig of ten cameras of 470x640 px, eight to train on and two held out,
5,000 sparse points, trained by the user's recipe. `calls` takes each operation of a step by a call
of its own, as trainers usually do; `graphs` is this project's loop; lanes are threads with a stream
each, as stage `train` has for the timestamps of a scene.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks import gpu_cases as cases
from benchmarks import photographs
from stages.run.checkpoint import Preemption
from stages.splat.config import TrainConfig
from stages.splat.lanes import side_by_side
from stages.splat.raster import choose_backend
from stages.splat.trainer import Trainer, TrainView

TARGET_PER_S, TARGET_TIMES = 1000, 3.0
ANCHOR_PER_S = 92  # of simple_trainer's loop on an H200, one scene of 540x960
Moment = tuple[photographs.Capture, list[TrainView], list[TrainView]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lanes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--calls", type=int, default=2, help="scenes to train by calls")
    parser.add_argument("--size", default="470x640", help="width x height, px")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    choose_backend("cuda")
    width, height = map(int, given.size.split("x"))
    moments: dict[str, Moment] = {}
    for k in range(given.scenes):
        capture = photographs.rig(10, width, height, 0.15 * k, "cuda")
        moments[f"{k:02d}"] = (capture, *cases.split(capture, 5))
    run(dict(list(moments.items())[:1]), given, 1)  # compiles
    kinds = [("calls, one after the other", dict(list(moments.items())[: given.calls]), 1, False)]
    kinds += [("graphs, one after the other", moments, 1, True)]
    kinds += [(f"graphs, {lanes} lanes", moments, lanes, True) for lanes in given.lanes]
    rows = []
    for name, some, lanes, graphs in kinds:
        if some:
            seconds, quality, count = run(some, given, lanes, graphs)
            rows.append(row(name, len(some) * given.steps / seconds, quality, count))
            cases.show(rows[-1:])
            cases.write_rows(given.out, rows)  # the last way may run into a time limit
    base = next(one for one in rows if "graphs, one" in one["name"])
    for one in rows:
        one["times_one_after_the_other"] = round(one["value"] / base["value"], 2)
    best = max(rows, key=lambda one: one["value"])
    rows.append(
        cases.row(
            f"{best['name']} over one after the other", best["value"] / base["value"], "times",
            target=TARGET_TIMES, psnr_difference_db=round(best["psnr_db"] - base["psnr_db"], 3),
        )
    )  # fmt: skip
    cases.show(rows)
    cases.write_rows(given.out, rows)


def run(
    moments: dict[str, Moment], given: argparse.Namespace, lanes: int, graphs: bool = True
) -> tuple[float, float, float]:
    """Seconds, mean PSNR of held-out views in dB, and mean number of Gaussians."""
    config = TrainConfig(max_steps=given.steps, workers=lanes)
    results: list[tuple[float, int]] = []

    def train(name: str, _: Preemption) -> None:
        capture, views, held_out = moments[name]
        trainer = Trainer(views, capture.points, capture.colors, config, "cuda", graphs=graphs)
        for step in range(given.steps):
            loss, _ = trainer.step(step)
        trainer.check_finite(trainer.value(loss), given.steps)
        gaussians = trainer.gaussians(given.steps)
        results.append((cases.mean_psnr(gaussians, held_out), len(gaussians)))

    torch.cuda.synchronize()
    begin = time.perf_counter()
    side_by_side(list(moments), train, config)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    quality, counts = zip(*results, strict=True)
    return seconds, statistics.fmean(quality), statistics.fmean(counts)


def row(name: str, per_s: float, quality: float, count: float) -> cases.Row:
    """One way of training them all."""
    return cases.row(
        name, per_s, "steps/s", anchor=ANCHOR_PER_S,
        target=TARGET_PER_S if "lanes" in name else None, psnr_db=round(quality, 3),
        gaussians=round(count),
    )  # fmt: skip


if __name__ == "__main__":
    main()
