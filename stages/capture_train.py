"""Stage `capture_train`: Gaussians of one capture, measured on its held-out views."""

from pathlib import Path

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments, Namespace
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import write_json, write_tsv
from stages.run.process.locks import alone
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.run.user_paths import make_target, run_name
from stages.scenes.captures.config import CaptureEntry, CaptureTrainConfig, inert_keys
from stages.splat.config import TrainConfig


def main() -> None:
    """Write RESULT_DIR/train, or results/<capture>/<variant>/train and its metrics."""
    parser = Arguments(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, help="a COLMAP dataset, or images")
    parser.add_argument("result", nargs="?", type=Path, help="folder for the results")
    parser.add_argument("match_string", nargs="?", default="", help="train on names with this word")
    parser.add_argument("--capture", type=name_argument, help="a calibrated capture instead")
    parser.add_argument("--variant", choices=["combined", "filtered"], help="of --capture")
    add_override_option(parser)
    args = parser.parse_args()
    is_named = args.capture is not None
    if is_named == (args.result is not None) or is_named != bool(args.variant):
        parser.error("name DATA and RESULT, or --capture with --variant")

    result = layout.result(args.capture, args.variant) if is_named else args.result
    make_target(result.parent)  # where the lock file is
    with alone(result):
        train(args, Params.read(overrides=args.overrides), result)


def train(args: Namespace, params: Params, result: Path) -> None:
    """Train the capture of the command line into `result`, which this run has locked."""
    data, match_string = args.data, args.match_string
    if args.capture:
        data = layout.capture(args.capture)
        entry = params.entry("captures", args.capture, CaptureEntry)
        match_string = entry.match_string if args.variant == "filtered" else ""
        if args.variant == "filtered" and not match_string:
            where = params.where(("captures", args.capture, "match_string"))
            raise UserError(where, "empty", expected="the word that variant filtered selects by")
    config = params.section("train", TrainConfig)
    evaluate = params.section("evaluate", EvaluateConfig)
    capture = params.section("capture_train", CaptureTrainConfig)

    from stages.scenes.dataset import Dataset
    from stages.splat.captures import measuring, results

    calibrated_by: tuple[str, ...] = ()  # sections that capture_calibrate reads
    if not args.capture:
        data, calibrated = results.posed_dataset(data, result, match_string, args.overrides)
        calibrated_by = results.CALIBRATION_SECTIONS if calibrated else ()
    for key, reason in inert_keys(capture, params.overridden_keys("capture_train")):
        print(f"{result}: capture_train.{key} has no effect: {reason}")
    for line in params.unread(
        **{section: params.overridden_keys(section) for section in calibrated_by}
    ):
        print(f"{result}: {line}")
    with cost("capture_train", run_name(result)):
        dataset, meter = Dataset.read(data), measuring.meter_of(evaluate, layout.WEIGHTS)
        scalars, fitted = results.train_result(
            dataset, match_string, result, capture, config, meter, params.overridden_keys("train")
        )
    if args.capture:
        write_json(layout.capture_metrics(args.capture, args.variant), scalars)
        curve = layout.capture_curve(args.capture, args.variant)
        write_tsv(curve, fitted.curve, ["step", "loss", "gaussians"])
    print(f"{result}: {scalars['gaussians']} Gaussians; held out: {measuring.summary(scalars)}")


if __name__ == "__main__":
    launch(main)
