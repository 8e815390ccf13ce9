"""A step of distillation at a trained scene of this workspace: time, and the GPU's kernels.

    python -m benchmarks.distill_step --scene hi4d_pair15_fight [--gaussians 100000] [--steps 1000]

Run it where `dvc repro train` has trained the scene. Steps are those of stage `fixed_views` on the
source views of the first timestamp, by the params of the workspace; how many there are in a study
is `distill.rounds` times `distill.steps` a timestamp and fixer. `--gaussians` takes a random choice
of the scene's.
"""

import argparse
import time
from dataclasses import fields, replace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.command_line import at_least, launch
from benchmarks.machine import device_name
from stages.quality.config import NovelViewsConfig
from stages.run import layout
from stages.run.errors import UserError
from stages.run.settings.params import Params
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.training.trainer import Trainer
from stages.splat.views.distill import distill_recipe
from stages.splat.views.fixed_views import DistillRecipe, FixedViews
from stages.splat.views.novel_views import TargetRenderer

_WARM_UP, _PROFILED = 100, 50  # steps
_KERNELS = 16  # rows of the profile


def main() -> None:
    """Print a step's time by as many Gaussians as the scene has, and by fewer if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", required=True, help="a trained scene of this workspace")
    parser.add_argument(
        "--gaussians",
        type=at_least(1),
        nargs="*",
        default=[],
        help="time fewer of the scene's as well",
    )
    parser.add_argument("--steps", type=at_least(1), default=1000, help="timed ones")
    args = parser.parse_args()
    if not (layout.scene(args.scene).is_dir() and layout.splats(args.scene).is_dir()):
        train = f"run `dvc repro train@{args.scene}`"
        raise UserError(f"--scene {args.scene}", f"no such trained scene; {train}")
    params = Params.read()
    recipe = DistillRecipe(
        params.section("distill", DistillConfig), params.section("train", TrainConfig)
    )
    rendering = params.section("novel_views", NovelViewsConfig)
    backend, _ = choose_backend(rendering.backend)
    scene = Scene.read(layout.scene(args.scene))
    calibration = read_calibration(layout.calibrated(args.scene))
    targets = TargetRenderer(scene, calibration, rendering, backend, None)
    # Nothing is fixed: the views are photographs.
    views = FixedViews(targets, layout.splats(args.scene), lambda *_, **__: [], recipe)
    trained = views.trained(scene.timestamps[0])
    total = len(trained.gaussians.means)
    if max(args.gaussians, default=0) > total:
        raise UserError(f"--gaussians {max(args.gaussians)}", f"the scene has {total}")
    sources = trained.source_views()
    height, width = sources[0].image.shape[:2]
    print(f"{device_name(backend)}, {len(sources)} views, the first of {width}x{height} px")
    config = distill_recipe(recipe.train, recipe.distill)
    for count in (None, *args.gaussians):
        gaussians = trained.gaussians if count is None else chosen(trained.gaussians, count)
        empty = np.empty((0, 3)), np.empty((0, 3), np.uint8)
        trainer = Trainer(sources, *empty, config, backend, gaussians)
        run(trainer, 0, _WARM_UP)
        began, cpu_began = time.perf_counter(), time.process_time()
        run(trainer, _WARM_UP, _WARM_UP + args.steps)
        per_step_ms = 1e3 / args.steps
        milliseconds = per_step_ms * (time.perf_counter() - began)
        host = per_step_ms * (time.process_time() - cpu_began)
        print(
            f"{len(gaussians.means):8} Gaussians: {milliseconds:.3f} ms a step; "
            f"{host:.3f} of the host, waiting included"
        )
        if count is None and backend == "cuda":
            print(kernels(trainer, _WARM_UP + args.steps))


def run(trainer: Trainer, first: int, last: int) -> None:
    """Take steps and wait for their end."""
    for step in range(first, last):
        loss, _ = trainer.step(step)
    trainer.value(loss)


def chosen(gaussians: Gaussians, count: int) -> Gaussians:
    """A random choice of Gaussians."""
    total = len(gaussians.means)
    kept = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count]
    values = {one.name: getattr(gaussians, one.name) for one in fields(gaussians)}
    return replace(
        gaussians,
        **{
            name: value[kept.to(value.device)]
            for name, value in values.items()
            if torch.is_tensor(value) and len(value.shape) and len(value) == total
        },
    )


def kernels(trainer: Trainer, first: int) -> str:
    """The kernels of a few more steps, the longest first."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        run(trainer, first, first + _PROFILED)
    rows = sorted(recorded.key_averages(), key=lambda row: -row.self_device_time_total)
    return "\n".join(
        f"{row.self_device_time_total / 1e3 / _PROFILED:8.4f} ms  {row.key[:90]}"
        for row in rows[:_KERNELS]
    )


if __name__ == "__main__":
    launch(main)
