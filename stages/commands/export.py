"""Write a fixer, or the tuning samples, in a form that NVIDIA's scripts of DiFix read: exports/."""

from pathlib import Path

from stages.run.arguments import Arguments
from stages.run.entry import launch

FORMS = ("pkl", "diffusers", "json")
DATASET, STAGES = "dataset", ("base", "tuned")


def main() -> None:
    """Write exports/<fixer>/model_0.pkl, exports/<fixer>/diffusers or exports/dataset.json.

    <fixer> is base, tuned, or two levels of a folder's path and eight digits of a hash of it.
    """
    parser = Arguments(description=__doc__)
    parser.add_argument("what", help="base, tuned, or a fixer's folder; or dataset")
    parser.add_argument("--form", required=True, choices=FORMS, help="json is that of dataset")
    args = parser.parse_args()
    if (args.what == DATASET) != (args.form == "json"):
        parser.error(f"--form {args.form}: json is the form of dataset, the others are of fixers")

    from stages.difix.weights.exports import export_dataset
    from stages.run import layout

    if args.what == DATASET:
        target = layout.export(DATASET).with_suffix(".json")
        lines = export_dataset(layout.dataset(), target)
    else:
        target, lines = _export_fixer(args.what, args.form)
    print(f"{target}: for NVIDIA's scripts:")
    print(*(f"  {line}" for line in lines), sep="\n")


def _export_fixer(name: str, form: str) -> tuple[Path, list[str]]:
    """Where a fixer was written, and commands that read it there."""
    from stages.difix.config import TuneConfig
    from stages.difix.weights.exports import export_folder, export_pkl
    from stages.difix.weights.folders import has_text, is_ours, read_folder
    from stages.run import layout
    from stages.run.errors import UserError
    from stages.run.settings.params import Params
    from stages.run.user_paths import run_name

    folder = layout.fixer(name) if name in STAGES else Path(name).expanduser()
    stage = next((one for one in STAGES if layout.fixer(one).resolve() == folder.resolve()), None)
    if not is_ours(folder):
        raise UserError(
            folder,
            "no fixer of this repository",
            expected="base or tuned, or a folder with fixer.json",
            fix="run `dvc repro base` or `dvc repro tune`, or name the folder",
        )
    fixer, start = read_folder(folder), layout.base()
    target = layout.export(stage or run_name(folder))
    if form == "pkl":
        lr = Params.read().value("tune", "lr", TuneConfig)
        if stage is None:
            print(f"note: {folder}: its VAE is assumed to be that of base.components")
        started = read_folder(start) if stage == "tuned" else None
        return target, export_pkl(fixer, target, started, lr)
    text = folder if has_text(folder) else start
    return target / form, export_folder(fixer, target / form, text)


if __name__ == "__main__":
    launch(main)
