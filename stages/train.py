"""Stage `train`: Gaussians of every timestamp of a scene, data/splats/<scene>."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json, write_tsv
from stages.run.notes import unshown
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.splat.config import TrainConfig
from stages.splat.training.shares import parse_share, train_share, train_shares

if TYPE_CHECKING:
    from stages.scenes.scene import Scene


def main() -> None:
    """Train all timestamps, or those of `--timestamps` into folders of `--into`."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a calibrated scene")
    args = parse_share(parser)

    from stages.scenes.scene import Scene

    config = Params.read().section("train", TrainConfig)
    prepared, calibrated = Scene.read(layout.scene(args.scene)), layout.calibrated(args.scene)
    if args.timestamps:
        train_share(prepared, calibrated, args.timestamps, args.into, config)
    else:
        train_all(prepared, calibrated, config)


def train_all(prepared: "Scene", calibrated: Path, config: TrainConfig) -> None:
    """Train all timestamps, then merge their reports."""
    from stages.run.checkpoint import forget
    from stages.splat.training.timestamps import merge_reports, scene_notes

    scene = prepared.name
    print(
        *(f"{scene}: {line}\n" for line in unshown(scene_notes(prepared, config))), sep="", end=""
    )
    with cost("train", scene), whole_folder(layout.splats(scene)) as folder:
        entry = ["stages.train", "--scene", scene]
        train_shares(prepared, calibrated, folder, config, entry)
        scalars, rows = merge_reports(folder, prepared.timestamps)
    write_json(layout.train_metrics(scene), scalars)
    write_tsv(layout.train_curves(scene), rows, ["timestamp", "step", "loss", "gaussians"])
    forget("train", scene)
    summary = "training views {train_psnr:.2f} dB, {gaussians:.0f} Gaussians per timestamp"
    print(f"{scene}: {summary.format(**scalars)}")


if __name__ == "__main__":
    launch(main)
