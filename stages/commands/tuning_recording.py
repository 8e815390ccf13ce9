"""Write the tuning as a recording of Rerun: samples and curves over its steps."""

from pathlib import Path

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.plurals import counted
from stages.run.user_paths import check_new_file, make_target


def main() -> None:
    """Write OUTPUT, from the tuned fixer's samples and the curves in metrics."""
    parser = Arguments(description=__doc__)
    parser.add_argument("output", type=Path, help="the recording, a new .rrd")
    output = parser.parse_args().output
    check_new_file(output, ".rrd")
    samples = layout.fixer("tuned") / "samples"
    if not samples.is_dir():
        raise UserError(
            samples,
            "no such folder",
            expected="samples that the tuning was checked on",
            fix="run `dvc repro tune` with `tune.samples` above 0, or `dvc pull`",
        )

    from stages.splat.viewing.recording import check_available, write_tuning

    check_available(str(output))
    make_target(output.resolve().parent)
    curves = {kind: layout.tune_curve(kind) for kind in ("loss", "validation")}
    count = write_tuning(output, samples, curves)
    print(f"{output}: {counted(count, 'sheet')} of samples; curves {', '.join(curves)}")


if __name__ == "__main__":
    launch(main)
