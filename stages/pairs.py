"""Stage `pairs`: tuning samples of one scene, data/pairs/<scene>."""

from stages.difix.config import FixerConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json
from stages.run.notes import unshown
from stages.run.plurals import counted
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.config import SPLITS, PairsConfig
from stages.splat.config import TrainConfig


def main() -> None:
    """Write data/pairs/<scene> and metrics/pairs/<scene>.json."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a trained scene")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        required=True,
        help="train: the fixer is tuned on these; test: the tuning is validated on these",
    )
    args = parser.parse_args()
    scene, split = args.scene, args.split

    from stages.run.checkpoint import forget
    from stages.samples.index import degraded_summary, metrics, write_index
    from stages.samples.planning import config_for_split
    from stages.samples.reconstructions import resumed_as
    from stages.samples.rendering import render_pairs
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.training.timestamps import scene_notes

    params = Params.read()
    config = params.section("pairs", PairsConfig)
    policy = params.value("difix", "reference_from", FixerConfig)
    train = params.section("train", TrainConfig)
    prepared = Scene.read(layout.scene(scene))
    prepared.cameras("target")  # raises without target cameras
    backend, reason = choose_backend(config.backend)
    trainings = config_for_split(config, split).trainings
    if trainings:
        for line in unshown(scene_notes(prepared, train, "pairs")):
            print(f"{scene}: {line}")
    calibrated, splats = layout.calibrated(scene), layout.splats(scene)
    with cost("pairs", scene), whole_folder(layout.pairs(scene)) as folder:
        index = render_pairs(
            prepared, calibrated, splats, folder, config, train, split, backend, policy
        )
        write_index(folder, index)
    numbers = metrics(index)
    write_json(layout.pairs_metrics(scene), numbers)
    forget("pairs", scene)
    if trainings:
        forget("train", resumed_as(scene))
    poses, low, high = index.pairs[0].poses, numbers["psnr_min"], numbers["psnr_max"]
    print(
        f"{scene}: {counted(numbers['pairs'], f'{split} sample')}, input {numbers['psnr']:.2f} dB "
        f"({low:.2f} to {high:.2f}), {poses} poses, on {backend} ({reason})"
    )
    if degraded := degraded_summary(index):
        print(f"{scene}: of these {degraded}")


if __name__ == "__main__":
    launch(main)
