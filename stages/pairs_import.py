"""Stage `pairs_import`: tuning samples from a dataset.json of DiFix's form, data/pairs/<name>."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json
from stages.run.plurals import counted
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.config import SPLITS, ImportEntry, ManifestConfig


def main() -> None:
    """Write data/pairs/<name> and metrics/pairs/<name>.json."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--dataset", type=name_argument, required=True, help="of `imports:`")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        required=True,
        help="train: the fixer is tuned on these; test: the tuning is validated on these",
    )
    args = parser.parse_args()
    name, split = args.dataset, args.split

    from stages.samples.importing import import_samples, read_foreign
    from stages.samples.index import metrics, write_index

    params = Params.read()
    entry = params.entry("imports", name, ImportEntry)
    prompt = params.value("manifest", "prompt", ManifestConfig)
    samples = read_foreign(layout.raw(name), entry, split, prompt)
    with cost("pairs_import", name), whole_folder(layout.pairs(name)) as folder:
        index = import_samples(samples, name, entry.group, split, folder)
        write_index(folder, index)
    numbers = metrics(index)
    write_json(layout.pairs_metrics(name), numbers)
    low, high = numbers["psnr_min"], numbers["psnr_max"]
    count = counted(numbers["pairs"], f"{split} sample")
    print(
        f"{name}: {count} imported from `{entry.part(split)}`, "
        f"input {numbers['psnr']:.2f} dB ({low:.2f} to {high:.2f}), group {entry.group}"
    )


if __name__ == "__main__":
    launch(main)
