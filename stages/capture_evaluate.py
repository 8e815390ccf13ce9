"""Stage `capture_evaluate`: a trained result, evaluated on another COLMAP dataset.

It is one of capture_train, static_train or gsplat's trainer, or a file of Gaussians.
"""

from pathlib import Path

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.scenes.captures.config import CaptureEvaluateConfig, inert_keys
from stages.scenes.static.config import READ_BY, StaticConfig
from stages.splat.config import TrainConfig


def main() -> None:
    """Write RESULT_DIR/eval_on_<name of EVAL_DIR>, or that of --capture and its metrics."""
    parser = Arguments(description=__doc__)
    parser.add_argument(
        "result", nargs="?", type=Path, help="a result folder, or a .ply or .pt of Gaussians"
    )
    parser.add_argument("eval_set", nargs="?", type=Path, help="a COLMAP dataset")
    parser.add_argument("--capture", type=name_argument, help="one on data/raw/<capture>_eval")
    parser.add_argument("--variant", choices=["combined", "filtered"], help="of --capture")
    parser.add_argument(
        "--trained-on", type=Path, help="the dataset of a result of another program, else EVAL_SET"
    )
    parser.add_argument("--output", type=Path, help="folder to write, else eval_on_<EVAL_SET>")
    add_override_option(parser)
    args = parser.parse_args()
    if bool(args.capture) == bool(args.eval_set) or bool(args.capture) != bool(args.variant):
        parser.error("name RESULT and EVAL_SET, or --capture with --variant")
    if args.capture and (args.trained_on or args.output):
        parser.error("--trained-on and --output go with RESULT and EVAL_SET")

    params = Params.read(overrides=args.overrides)
    config = params.section("capture_evaluate", CaptureEvaluateConfig)
    if config.backend == "auto":
        backend = params.value("train", "backend", TrainConfig)
        config = config.model_copy(update={"backend": backend})
    evaluate = params.section("evaluate", EvaluateConfig)
    static = params.section("static", StaticConfig)
    result, eval_set = args.result, args.eval_set
    if args.capture:
        result, eval_set = layout.result(args.capture, args.variant), layout.eval_set(args.capture)

    from stages.run.user_paths import check_source, run_name
    from stages.scenes.dataset import Dataset
    from stages.splat.captures.evaluation import evaluate_result
    from stages.splat.captures.measuring import meter_of, summary
    from stages.splat.views.covisible import covisibility_of

    for key, reason in inert_keys(config, params.overridden_keys("capture_evaluate")):
        print(f"{result}: capture_evaluate.{key} has no effect: {reason}")
    read = READ_BY["capture_evaluate"] if config.covisible else ()
    for line in params.unread(static=read, train=("backend",)):
        print(f"{result}: {line}")
    check_source(eval_set)
    with cost("capture_evaluate", run_name(result)):
        scalars = evaluate_result(
            result,
            Dataset.read(eval_set),
            config,
            meter_of(evaluate, layout.WEIGHTS),
            trained_on=args.trained_on,
            output=args.output,
            covisibility=covisibility_of(static) if config.covisible else None,
        )
    if args.capture:
        write_json(layout.capture_metrics(args.capture, f"{args.variant}_on_eval"), scalars)
    print(f"{result} on {eval_set}: {scalars['frame']}; {summary(scalars)}")


if __name__ == "__main__":
    launch(main)
