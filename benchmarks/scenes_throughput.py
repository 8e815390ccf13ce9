"""Many small scenes: timestamps and steps per second, in sequence, side by side, and warm.

    python -m benchmarks.scenes_throughput [--scenes 20] [--steps 1500] [--streams 2 4 8]
        [--out FILE]

The scenes are the timestamps of a rig of ten cameras of 470x640 px, eight to train on and two held
out, 5,000 sparse points, trained by the full-size recipe. `calls` launches each operation of a step
by a call of its own, as trainers usually do; `graphs` are this project's graph steps; streams are
threads with a CUDA stream each, as stage `train` has for the timestamps of a scene; `warm` is
`train.warm_start`, where most timestamps start from a neighbour. Timestamps per second are
compared: a warm start takes fewer steps for the same.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks import captured_images
from benchmarks import splat_cases as cases
from benchmarks.command_line import launch, size
from stages.run.process.stopping import Preemption
from stages.splat.config import TrainConfig, TrainRuntime
from stages.splat.gaussians import Gaussians
from stages.splat.training.placement import rounds, side_by_side, starts, streams
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

TARGET_PER_S, TARGET_TIMES = 1000, 3.0
ANCHOR_PER_S = 92  # of simple_trainer on an H200, one scene of 540x960
Timestamp = tuple[captured_images.Capture, list[TrainView], list[TrainView]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--streams", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--calls", type=int, default=2, help="scenes to train by calls")
    parser.add_argument("--size", type=size, default="470x640", help="width x height, px")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cases.use_gpu()
    width, height = map(int, args.size.split("x"))
    timestamps: dict[str, Timestamp] = {}
    for k, capture in enumerate(captured_images.timestamps(args.scenes, width, height, "cuda")):
        timestamps[f"{k:02d}"] = (capture, *cases.split(capture, captured_images.HELD_OUT))
    run(dict(list(timestamps.items())[:1]), TrainConfig(max_steps=args.steps))  # compiles
    usual = TrainConfig(max_steps=args.steps, runtime=TrainRuntime(workers=1))
    warm = usual.model_copy(update={"warm_start": True})
    kinds = [("calls, in sequence", usual.model_copy(update={"execution": "eager"}))]
    kinds += [("graphs, in sequence", usual), ("graphs, warm", warm)]
    for at_once in args.streams:
        for name, config in (("graphs", usual), ("graphs, warm", warm)):
            runtime = TrainRuntime(workers=at_once)
            kinds.append(
                (f"{name}, {at_once} streams", config.model_copy(update={"runtime": runtime}))
            )
    rows: list[cases.Row] = []
    for name, config in kinds:
        count = args.calls if config.execution == "eager" else args.scenes
        if count:
            rows += run(dict(list(timestamps.items())[:count]), config, name)
            cases.show(rows[-2:])
            cases.write_rows(args.out, rows)  # the last kind may run into a time limit
    rates = [one for one in rows if one["unit"] == "timestamps/s"]
    base = next(one for one in rates if "graphs, in sequence" in one["name"])
    for one in rates:
        times = one["value"] / base["value"]
        apart = {"psnr_difference_db": round(one["psnr_db"] - base["psnr_db"], 3)}
        if one is not base:
            ratio = f"{one['name']} over graphs, in sequence"
            rows.append(cases.row(ratio, times, "times", target=TARGET_TIMES, **apart))
    cases.show(rows)
    cases.write_rows(args.out, rows)


def run(timestamps: dict[str, Timestamp], config: TrainConfig, name: str = "") -> list[cases.Row]:
    """Train all timestamps in one way: timestamps and steps per second."""
    results: dict[str, tuple[float, float, int, int]] = {}
    trained: dict[str, Gaussians] = {}
    neighbours = starts(list(timestamps), config)

    def train(timestamp: str, _: Preemption) -> None:
        capture, views, held_out = timestamps[timestamp]
        start = neighbours[timestamp]
        recipe = config.following() if start else config
        begin = trained[start] if start else None
        trainer = Trainer(views, capture.points, capture.colors, recipe, "cuda", begin)
        for step in range(recipe.steps):
            loss, _ = trainer.step(step)
        trainer.check_finite(trainer.value(loss), recipe.steps)
        trained[timestamp] = gaussians = trainer.gaussians(recipe.steps)
        scores = (cases.mean_psnr(gaussians, some) for some in (held_out, views))
        results[timestamp] = (*scores, len(gaussians), recipe.steps)

    torch.cuda.synchronize()
    begin = time.perf_counter()
    for part in rounds(list(timestamps), config):
        side_by_side(part, train, streams(config, "cuda"))
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    quality, on_training, counts, steps = zip(*results.values(), strict=True)
    averages = {
        "psnr_db": round(statistics.fmean(quality), 3),
        "train_psnr_db": round(statistics.fmean(on_training), 3),
        "gaussians": round(statistics.fmean(counts)),
    }
    return [
        cases.row(name, len(timestamps) / seconds, "timestamps/s", **averages),
        cases.row(
            name,
            sum(steps) / seconds,
            "steps/s",
            anchor=ANCHOR_PER_S,
            target=TARGET_PER_S,
            **averages,
        ),
    ]


if __name__ == "__main__":
    launch(main)
