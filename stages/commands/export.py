"""Write a fixer in a form that NVIDIA's scripts of DiFix read, below exports/."""

from pathlib import Path

from stages.run.arguments import Arguments
from stages.run.entry import launch

FORMS = ("pkl", "diffusers")


def main() -> None:
    """Write exports/<fixer>/model_0.pkl, or the folder exports/<fixer>/diffusers."""
    parser = Arguments(description=__doc__)
    parser.add_argument("fixer", help="base, tuned, or a fixer's folder")
    parser.add_argument("--form", required=True, choices=FORMS, help="of the export")
    args = parser.parse_args()

    from stages.difix.config import TuneConfig
    from stages.difix.weights.exports import export_folder, export_pkl
    from stages.difix.weights.folders import has_text, is_ours, read_folder
    from stages.run import layout
    from stages.run.errors import UserError
    from stages.run.settings.params import Params

    is_stage = args.fixer in ("base", "tuned")
    folder = layout.fixer(args.fixer) if is_stage else Path(args.fixer).expanduser()
    if not is_ours(folder):
        raise UserError(
            folder,
            "no fixer of this repository",
            expected="base or tuned, or a folder with fixer.json",
            fix="run `dvc repro base` or `dvc repro tune`, or name the folder",
        )
    fixer, start = read_folder(folder), layout.base()
    target = layout.export(args.fixer if is_stage else folder.resolve().name)
    if args.form == "pkl":
        lr = Params.read().value("tune", "lr", TuneConfig)
        started = read_folder(start) if args.fixer == "tuned" else None
        lines = export_pkl(fixer, target, started, lr)
    else:
        target /= args.form
        lines = export_folder(fixer, target, folder if has_text(folder) else start)
    print(f"{target}: {fixer.spec.origin}; for NVIDIA's scripts:")
    print(*(f"  {line}" for line in lines), sep="\n")


if __name__ == "__main__":
    launch(main)
