"""Stage `train`: Gaussians of every timestamp of a scene, data/splats/<scene>."""

import argparse
import os
from pathlib import Path

from stages.run import layout
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json, write_tsv
from stages.run.process.parallel import run_all
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.splat.config import TrainConfig


def main() -> None:
    """Train all timestamps, or those of `--timestamps` into folders of `--into`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a calibrated scene")
    parser.add_argument("--timestamps", nargs="+", help="train these alone (needs --into)")
    parser.add_argument("--into", type=Path, help="folder for the results of --timestamps")
    parser.add_argument("--gpu", help="the GPU for --timestamps, by its number or its name")
    given = parser.parse_args()
    if (given.timestamps is None) != (given.into is None):
        parser.error("--timestamps and --into go together")
    config = Params.read().section("train", TrainConfig)
    if given.timestamps:
        train_some(given, config)
    else:
        train_all(given.scene, config)


def train_some(given: argparse.Namespace, config: TrainConfig) -> None:
    """Train timestamps in this process; results and fit.json go to `<into>/<timestamp>`."""
    if given.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = given.gpu  # read when torch first looks
    from stages.scenes.scene import Scene
    from stages.splat.training.placement import side_by_side, warm_starts
    from stages.splat.training.timestamps import train_in

    timestamps = Scene.read(layout.scene(given.scene)).timestamps
    warm = warm_starts(given.into, timestamps, config)
    side_by_side(
        given.timestamps,
        lambda name, preemption: train_in(
            given.into / name, given.scene, name, config, warm[name], preemption
        ),
        config,
    )


def train_all(scene: str, config: TrainConfig) -> None:
    """Train every timestamp in processes of their own, then merge what they report."""
    from stages.run.checkpoint import forget
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.training.placement import plan, rounds
    from stages.splat.training.timestamps import merge_reports, require_memory, scene_notes

    prepared = Scene.read(layout.scene(scene))
    print(*(f"{scene}: {line}\n" for line in scene_notes(prepared, config)), sep="", end="")
    # Here, since processes that build kernels together destroy each other's.
    backend, reason = choose_backend(config.backend)
    with cost("train", scene), whole_folder(layout.splats(scene)) as folder:
        for part in rounds(prepared.timestamps, config):
            planned = plan(part, config, backend)
            print(f"{scene}: {backend} ({reason}), float32, {planned}", flush=True)
            require_memory(prepared, config, planned.at_once * planned.lanes)
            run_all(planned.commands(scene, folder), planned.at_once)
        scalars, rows = merge_reports(folder, prepared.timestamps)
    write_json(layout.train_metrics(scene), scalars)
    write_tsv(layout.train_curves(scene), rows, ["timestamp", "step", "loss", "gaussians"])
    forget("train", scene)
    told = "training views {train_psnr:.2f} dB, {gaussians:.0f} Gaussians a timestamp"
    print(f"{scene}: {told.format(**scalars)}")


if __name__ == "__main__":
    launch(main)
