"""Stage `train` of one scene by one GPU and by several, each with every n-th timestamp.

    python -m benchmarks.train_gpus [--timestamps 20] [--steps 7000] [--gpus 1 2 4] [--out FILE]

The scene is that of `scenes_throughput`, eight cameras of 470x640 px and 5,000 sparse points,
prepared and calibrated in a temporary folder, and trained by the full-size recipe. Seconds are
of the whole command, with the start of each process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

from benchmarks import captured_images
from benchmarks import splat_cases as cases
from benchmarks.command_line import launch, size
from stages.run import layout
from stages.run.files import WORK_ROOT_VARIABLE, read_json
from stages.run.process.gpus import gpu_environment, visible_gpus
from stages.scenes.cameras import Camera
from stages.scenes.images import write_png
from stages.scenes.poses.calibration import transfer_targets, write_calibration
from stages.scenes.scene import write_scene
from stages.scenes.view import Role, View
from stages.splat.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
SCENE = "rig"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timestamps", type=int, default=20)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4], help="at once")
    parser.add_argument("--size", type=size, default="470x640", help="width x height, px")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    gpus = visible_gpus()
    if max(args.gpus) > len(gpus):
        parser.error(f"--gpus {max(args.gpus)}: this machine has {len(gpus)}")
    cases.use_gpu()  # builds its kernels once for all
    width, height = map(int, args.size.split("x"))
    out = args.out.absolute() if args.out else None
    rows: list[cases.Row] = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_timestamps(captured_images.timestamps(args.timestamps, width, height, "cuda"))
        train(gpus[:1], TrainConfig(max_steps=50))  # compiles the kernels of a step
        for count in args.gpus:
            rows.append(measured(gpus[:count], args))
            rows[-1]["times_the_first"] = round(rows[0]["value"] / rows[-1]["value"], 2)
            cases.write_rows(out, rows)
    cases.show(rows)


def measured(gpus: Sequence[str], args: argparse.Namespace) -> cases.Row:
    """Train the scene on these GPUs."""
    begin = time.perf_counter()
    metrics = train(gpus, TrainConfig(max_steps=args.steps))
    seconds = time.perf_counter() - begin
    return cases.row(
        f"stage train, {args.timestamps} timestamps, {len(gpus)} GPU(s)",
        seconds,
        "s",
        size=args.size,
        steps=args.steps,
        gpus=len(gpus),
        steps_per_s=round(args.timestamps * args.steps / seconds),
        psnr_db=round(metrics["train_psnr"], 3),
        gaussians=round(metrics["gaussians"]),
    )


def train(gpus: Sequence[str], config: TrainConfig) -> dict[str, float]:
    """Run the stage in the current folder; its metrics."""
    Path("params.yaml").write_text(json.dumps({"train": config.model_dump(mode="json")}))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), WORK_ROOT_VARIABLE: ".work"}
    env |= gpu_environment(gpus)
    subprocess.run([sys.executable, "-m", "stages.train", "--scene", SCENE], env=env, check=True)
    return read_json(layout.train_metrics(SCENE))


def write_timestamps(captures: Iterable[captured_images.Capture]) -> None:
    """Write timestamps as a prepared and calibrated scene into the current folder."""
    folder, views, points = layout.scene(SCENE), [], {}
    cameras: dict[Role, dict[str, Camera]] = {"source": {}, "target": {}}
    for index, capture in enumerate(captures):
        timestamp = f"{index:06d}"
        points[timestamp] = capture.points, capture.colors
        for k, (camera, image) in enumerate(zip(capture.cameras, capture.images, strict=True)):
            path = folder / "frames" / timestamp / "images" / camera.name
            write_png(path, image / 255)
            role: Role = "source" if k % captured_images.HELD_OUT else "target"
            cameras[role][path.stem] = replace(camera, name=path.stem)
            views.append(View(cameras[role][path.stem], path, timestamp=timestamp, role=role))
    write_scene(folder, {"name": SCENE, "group": SCENE}, views)
    # Poses are exact, but called estimated: those of method `given` would be held.
    calibration, _ = transfer_targets(
        "colmap", cameras["source"], cameras["source"], cameras["target"]
    )
    write_calibration(layout.calibrated(SCENE), calibration, points)


if __name__ == "__main__":
    launch(main)
