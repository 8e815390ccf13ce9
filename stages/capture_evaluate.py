"""Stage `capture_evaluate`: a trained capture, evaluated on another COLMAP dataset."""

import argparse
from pathlib import Path

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.files import write_json
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.scenes.captures.config import CaptureEvaluateConfig, inert_keys


def main() -> None:
    """Write RESULT_DIR/eval_on_<name of EVAL_DIR>, or that of --capture and its metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", nargs="?", type=Path, help="a folder of capture_train")
    parser.add_argument("eval_set", nargs="?", type=Path, help="a COLMAP dataset")
    parser.add_argument(
        "--capture",
        type=name_argument,
        help="a trained capture instead, on data/raw/<capture>_eval",
    )
    parser.add_argument("--variant", choices=["combined", "filtered"], help="of --capture")
    add_override_option(parser)
    args = parser.parse_args()
    if (args.capture is None) == (args.eval_set is None) or bool(args.capture) != bool(
        args.variant
    ):
        parser.error("name RESULT and EVAL_SET, or --capture with --variant")

    params = Params.read(overrides=args.overrides)
    config = params.section("capture_evaluate", CaptureEvaluateConfig)
    evaluate = params.section("evaluate", EvaluateConfig)
    result, eval_set = args.result, args.eval_set
    if args.capture:
        result = layout.result(args.capture, args.variant)
        eval_set = layout.eval_set(args.capture)

    from stages.run.user_paths import check_source, run_name
    from stages.scenes.dataset import Dataset
    from stages.splat.captures.results import evaluate_result, meter_of, summary

    for key, reason in inert_keys(config, params.overridden_keys("capture_evaluate")):
        print(f"{result}: capture_evaluate.{key} has no effect: {reason}")
    for line in params.unread():
        print(f"{result}: {line}")
    check_source(result)
    check_source(eval_set)

    with cost("capture_evaluate", run_name(result)):
        scalars = evaluate_result(
            result, Dataset.read(eval_set), config, meter_of(evaluate, layout.WEIGHTS)
        )
    if args.capture:
        write_json(layout.capture_metrics(args.capture, f"{args.variant}_on_eval"), scalars)
    print(f"{result} on {eval_set}: {scalars['frame']}; {summary(scalars)}")


if __name__ == "__main__":
    launch(main)
