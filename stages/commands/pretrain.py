"""Train a fixer from scratch on procedural worlds and pack it for `base.source`.

Not a stage of the pipeline: run it by hand when the architecture or the worlds change.
"""

import tempfile
from pathlib import Path

from stages.difix.config import BaseConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.settings.params import Params
from stages.run.user_paths import make_file_target


def main() -> None:
    """Write the packed fixer to `--out`; a stopped run continues."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    args = parser.parse_args()
    make_file_target(args.out)
    config = Params.read().section("base", BaseConfig)

    from stages.difix.network.spec import SIZES
    from stages.difix.network.text import embed, write_tiny_text
    from stages.difix.pretraining.worlds_fixer import pretrain
    from stages.difix.weights.folders import write_folder
    from stages.difix.weights.packed import pack
    from stages.run.checkpoint import Checkpoint, forget
    from stages.run.provenance import cost

    key = (config.pretrain.recipe(), config.prompt, str(config.seed))
    checkpoint = Checkpoint("pretrain", "small", *key)
    with tempfile.TemporaryDirectory() as scratch, cost("pretrain", "small"):
        text, folder = Path(scratch, "text"), Path(scratch, "fixer")
        write_tiny_text(text, SIZES["small"].unet["cross_attention_dim"], config.seed)
        tuner = pretrain(config, embed(text, config.prompt), layout.WEIGHTS, checkpoint)
        write_folder(tuner.fixer, folder, text)
        pack(folder, args.out)
    forget("pretrain", "small")
    for row in tuner.validations:
        if row["step"] in (0, config.pretrain.steps):
            print(", ".join(f"{key} {value}" for key, value in row.items()))
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    launch(main)
