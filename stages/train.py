"""Stage `train`: Gaussians of every timestamp of a scene, data/splats/<scene>."""

import argparse
import sys
from pathlib import Path

from stages.run import layout
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json, write_tsv
from stages.run.parallel import run_all
from stages.run.params import Params
from stages.run.provenance import cost
from stages.splat.config import TrainConfig, doubtful, inert


def main() -> None:
    """Train all timestamps, or the one of `--timestamp` into `--into`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True, help="a calibrated scene")
    parser.add_argument("--timestamp", help="train this one alone (needs --into)")
    parser.add_argument("--into", type=Path, help="folder for the results of --timestamp")
    parser.add_argument("--warm", type=Path, help="Gaussians that --timestamp starts from")
    given = parser.parse_args()
    if (given.timestamp is None) != (given.into is None):
        parser.error("--timestamp and --into go together")
    config = Params.read().section("train", TrainConfig)
    if given.timestamp:
        train_one(given, config)
    else:
        train_all(given.scene, config)


def train_one(given: argparse.Namespace, config: TrainConfig) -> None:
    """Train one timestamp; its results and fit.json go to `given.into`."""
    from stages.scenes.scene import Scene
    from stages.splat.moments import train_moment

    given.into.mkdir(parents=True, exist_ok=True)
    scene, calibrated = Scene.read(layout.scene(given.scene)), layout.calibrated(given.scene)
    with cost("train", f"{given.scene}.{given.timestamp}"):
        fitted = train_moment(scene, calibrated, given.timestamp, config, given.into, given.warm)
    report = {"curve": fitted.curve, "evaluations": fitted.evaluations}
    write_json(given.into / "fit.json", report)


def train_all(scene: str, config: TrainConfig) -> None:
    """Train every timestamp in processes of their own, then merge what they report."""
    from stages.run.checkpoint import forget
    from stages.scenes.scene import Scene
    from stages.splat.moments import merge_reports
    from stages.splat.raster import choose_backend

    for key, reason in [*inert(config), *doubtful(config)]:
        print(f"{scene}: train.{key}: {reason}")
    timestamps = Scene.read(layout.scene(scene)).timestamps
    # Here, since processes that build kernels together destroy each other's.
    backend, reason = choose_backend(config.backend)
    # Warm starts follow one another; a GPU is filled by one process.
    workers = 1 if config.warm_start or backend == "cuda" else config.workers
    print(f"{scene}: {backend} ({reason}), float32, {workers} at once", flush=True)
    with cost("train", scene), whole_folder(layout.splats(scene)) as folder:
        commands = []
        for index, timestamp in enumerate(timestamps):
            command = [sys.executable, "-m", "stages.train", "--scene", scene]
            command += ["--timestamp", timestamp, "--into", str(folder / timestamp)]
            if config.warm_start and index:
                warm = folder / timestamps[index - 1] / "gaussians.safetensors"
                command += ["--warm", str(warm)]
            commands.append(command)
        run_all(commands, workers)
        scalars, rows = merge_reports(folder, timestamps)
    write_json(layout.train_metrics(scene), scalars)
    write_tsv(layout.train_curves(scene), rows, ["timestamp", "step", "loss", "gaussians"])
    forget("train", scene)
    psnr_db, count = scalars["train_psnr"], scalars["gaussians"]
    print(f"{scene}: training views {psnr_db:.2f} dB, {count:.0f} Gaussians a timestamp")


if __name__ == "__main__":
    launch(main)
