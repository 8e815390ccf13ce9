"""One scene trained on the CPU and on the GPU: speed, quality, and renders of one checkpoint.

    python -m benchmarks.splat_backends --scene hi4d_pair15_fight [--backends cpu cuda]

The scene must be prepared and calibrated (`dvc repro calibrate`). Prints one table.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.command_line import launch
from stages.quality.metrics.psnr import psnr
from stages.run import layout
from stages.run.settings.params import Params
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.render import render
from stages.splat.training.timestamps import chosen_views, train_view
from stages.splat.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default="hi4d_pair15_fight")
    parser.add_argument("--backends", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    config = Params.read().section("train", TrainConfig)
    scene = Scene.read(layout.scene(args.scene))
    calibration = read_calibration(layout.calibrated(args.scene))
    timestamp = scene.timestamps[0]
    views = [train_view(v, calibration, config) for v in chosen_views(scene, timestamp, config)]
    trained, rows = {}, []
    for name in args.backends:
        backend, _ = choose_backend(name)
        trainer = Trainer(views, *calibration.points(timestamp), config, backend)
        warm_up(trainer)
        trainer = Trainer(views, *calibration.points(timestamp), config, backend)
        seconds = run(trainer)
        trained[backend] = trainer.gaussians(config.steps)
        rows.append(
            {
                "backend": backend,
                "steps_per_s": round(config.steps / seconds, 1),
                "gaussians": len(trained[backend]),
                "train_psnr_db": round(mean_psnr(trainer, trained[backend]), 2),
            }
        )
    print(f"{args.scene}, {len(views)} views of {views[0].camera.width}x{views[0].camera.height}")
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if len(trained) == 2:
        difference = compare_renders(trained["cpu"], calibration.targets.values())
        print(f"renders of one checkpoint: mean absolute difference {difference:.2e}")
        rows.append({"render_difference": difference})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def warm_up(trainer: Trainer) -> None:
    for step in range(20):
        trainer.step(step)


def run(trainer: Trainer) -> float:
    """Seconds for all steps."""
    if trainer.backend == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for step in range(trainer.config.steps):
        trainer.step(step)
    if trainer.backend == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def mean_psnr(trainer: Trainer, gaussians: Gaussians) -> float:
    scores = []
    for camera, image in zip(trainer.learnt_cameras(), trainer.views.images, strict=True):
        rendered = render(gaussians, camera, trainer.backend).rgb
        scores.append(float(psnr(*(x.permute(2, 0, 1)[None].cpu() for x in (rendered, image)))))
    return sum(scores) / len(scores)


def compare_renders(gaussians: Gaussians, cameras: object) -> float:
    """Mean absolute difference of the two backends' renders of the same Gaussians."""
    differences = []
    for camera in cameras:  # type: ignore[attr-defined]
        on_cpu = render(gaussians.to("cpu"), camera, "cpu").rgb
        on_cuda = render(gaussians.to("cuda"), camera, "cuda").rgb.cpu()
        differences.append(float((on_cpu - on_cuda).abs().mean()))
    return sum(differences) / len(differences)


if __name__ == "__main__":
    launch(main)
