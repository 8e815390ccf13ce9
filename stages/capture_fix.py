"""Stage `capture_fix`: evaluated views of a capture by the methods of a fixer."""

from pathlib import Path

from stages.difix.config import FixerConfig
from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json
from stages.run.methods import FIXERS, PLAIN
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.run.user_paths import run_name
from stages.scenes.captures.config import CaptureEvaluateConfig, CaptureStudy, CaptureTrainConfig
from stages.splat.config import DistillConfig, TrainConfig


def main() -> None:
    """Write RESULT/fixed/<fixer>/<views>, or results/fixed/<capture>/<fixer> and its metrics."""
    parser = Arguments(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, help="the dataset that was trained on")
    parser.add_argument("result", nargs="?", type=Path, help="a folder of capture_train")
    parser.add_argument("eval_set", nargs="?", type=Path, help="one of capture_evaluate's sets")
    parser.add_argument("--capture", type=name_argument, help="an evaluated capture instead")
    parser.add_argument("--fixer", required=True, help=f"a folder, or {' or '.join(FIXERS)}")
    add_override_option(parser)
    args = parser.parse_args()
    if (args.capture is None) == (args.result is None):
        parser.error("name DATA and RESULT, or --capture")

    from stages.difix.applied import AppliedFixer
    from stages.quality.method_table import method_table
    from stages.scenes.dataset import Dataset
    from stages.splat.captures.fixed_results import FixedCaptures
    from stages.splat.captures.fixing import Fixing
    from stages.splat.captures.measuring import meter_of

    params = Params.read(overrides=args.overrides)
    folder = layout.fixer(args.fixer) if args.fixer in FIXERS else Path(args.fixer)
    fixer = AppliedFixer.read(folder, params.section("difix", FixerConfig))
    fixing = Fixing(
        fixer,
        params.value("capture_study", "methods", CaptureStudy),
        meter_of(params.section("evaluate", EvaluateConfig), layout.WEIGHTS),
        params.section("distill", DistillConfig),
        params.section("train", TrainConfig),
    )
    captures = FixedCaptures(
        fixing,
        params.section("capture_train", CaptureTrainConfig),
        params.section("capture_evaluate", CaptureEvaluateConfig),
    )
    variants = params.value("capture_study", "variants", CaptureStudy) if args.capture else ()
    read = ("methods", "variants") if args.capture else ("methods",)
    for line in params.unread(capture_study=read, **fixing.unread):
        print(f"{args.capture or args.result}: {line}")
    print(f"{args.capture or args.result} by {fixer.name}: {fixer.runner.summary}", flush=True)
    for note in fixing.notes:
        print(f"note: {note}")
    if not args.capture:
        with cost("capture_fix", f"{run_name(args.result)}.{fixer.name}"):
            written, methods = captures.below(args.result, args.data, args.eval_set)
        print(method_table(str(written), methods))
        return
    capture = args.capture
    results = {variant: layout.result(capture, variant) for variant in variants}
    sets = Dataset.read(layout.capture(capture)), Dataset.read(layout.eval_set(capture))
    with cost("capture_fix", f"{capture}.{fixer.name}"):
        by_views = captures.of_variants(layout.fixed(capture, fixer.name), results, *sets)
    for (variant, views), methods in by_views.items():
        print(method_table(f"{capture} {variant}, {views}", methods))
        name = variant if views == "held_out" else f"{variant}_on_eval"
        for method in methods.keys() - {PLAIN}:
            write_json(layout.capture_metrics(capture, name, method), methods[method])


if __name__ == "__main__":
    launch(main)
