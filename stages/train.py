"""Stage `train`: Gaussians of every timestamp of a scene, data/splats/<scene>."""

import argparse
from pathlib import Path

from stages.run import layout
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json, write_tsv
from stages.run.process.gpus import use_gpus
from stages.run.process.parallel import run_all
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.splat.config import TrainConfig


def main() -> None:
    """Train all timestamps, or those of `--timestamps` into folders of `--into`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a calibrated scene")
    parser.add_argument("--timestamps", nargs="+", help="train these only (needs --into)")
    parser.add_argument("--into", type=Path, help="folder for the results of --timestamps")
    parser.add_argument("--gpu", help="the GPU for --timestamps, by its number or its name")
    args = parser.parse_args()
    if (args.timestamps is None) != (args.into is None):
        parser.error("--timestamps and --into go together")
    config = Params.read().section("train", TrainConfig)
    if args.timestamps:
        train_some(args, config)
    else:
        train_all(args.scene, config)


def train_some(args: argparse.Namespace, config: TrainConfig) -> None:
    """Train timestamps in this process; results and fit.json go to `<into>/<timestamp>`."""
    if args.gpu:
        use_gpus([args.gpu])
    from stages.scenes.scene import Scene
    from stages.splat.training.placement import side_by_side, warm_starts
    from stages.splat.training.timestamps import train_in

    scene, calibrated = Scene.read(layout.scene(args.scene)), layout.calibrated(args.scene)
    warm = warm_starts(args.into, scene.timestamps, config)
    side_by_side(
        args.timestamps,
        lambda name, preemption: train_in(
            args.into / name, scene, calibrated, name, config, warm[name], preemption
        ),
        config,
    )


def train_all(scene: str, config: TrainConfig) -> None:
    """Train the timestamps in child processes, then merge their reports."""
    from stages.run.checkpoint import forget
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.training.placement import place, rounds
    from stages.splat.training.timestamps import merge_reports, require_memory, scene_notes

    prepared = Scene.read(layout.scene(scene))
    print(*(f"{scene}: {line}\n" for line in scene_notes(prepared, config)), sep="", end="")
    # Here, because parallel builds of the kernels break each other.
    backend, reason = choose_backend(config.backend)
    with cost("train", scene), whole_folder(layout.splats(scene)) as folder:
        for part in rounds(prepared.timestamps, config):
            placement = place(part, config, backend)
            print(f"{scene}: {backend} ({reason}), float32, {placement}", flush=True)
            require_memory(prepared, config, placement.at_once)
            run_all(placement.commands(scene, folder), placement.processes)
        scalars, rows = merge_reports(folder, prepared.timestamps)
    write_json(layout.train_metrics(scene), scalars)
    write_tsv(layout.train_curves(scene), rows, ["timestamp", "step", "loss", "gaussians"])
    forget("train", scene)
    summary = "training views {train_psnr:.2f} dB, {gaussians:.0f} Gaussians per timestamp"
    print(f"{scene}: {summary.format(**scalars)}")


if __name__ == "__main__":
    launch(main)
