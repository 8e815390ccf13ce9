"""Write samples from procedural worlds as a dataset in DiFix's form, to train another fixer on.

The worlds are those of `base.pretrain`, as of `python -m stages.pretrain`. Not a stage: no scene
and no image of a study is read or written.
"""

from pathlib import Path

from stages.difix.config import BaseConfig
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.plurals import counted
from stages.run.settings.params import Params, add_override_option
from stages.scenes.config import SPLITS


def main() -> None:
    """Write `--out`/dataset.json and the images that it names."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or an earlier one")
    add_override_option(parser)
    args = parser.parse_args()
    config = Params.read(overrides=args.overrides).section("base", BaseConfig)

    from stages.difix.network.precision import choose_device
    from stages.difix.network.spec import SIZES
    from stages.difix.pretraining.worlds_files import DATASET, INFO, write_worlds
    from stages.difix.pretraining.worlds_stream import WorldsStream
    from stages.run.user_paths import check_replaceable, make_target

    check_replaceable(args.out, INFO)
    make_target(args.out.absolute().parent)
    device, reason = choose_device(config.pretrain.device, "base.pretrain.device")
    print(f"on {device} ({reason})")
    stream = WorldsStream(config.pretrain, SIZES["small"].warped, device)
    numbers = write_worlds(stream, args.out, config.prompt)
    for split in SPLITS:
        print(
            f"{split}: {counted(numbers[split], 'sample')}, input {numbers[f'{split}_psnr']:.2f} dB"
        )
    print(args.out / DATASET)


if __name__ == "__main__":
    launch(main)
