"""Stage `capture_calibrate`: images to a COLMAP dataset, with their model or by estimation."""

import os
from pathlib import Path

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.at_work import at_work
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import whole_folder, write_json
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.run.user_paths import check_apart, check_source, make_target
from stages.scenes.captures.config import CaptureCalibrateConfig, inert_calibration_keys
from stages.scenes.config import VggtConfig


def main() -> None:
    """Write data/captures/<capture> and its metrics, or DATASET_DIR."""
    parser = Arguments(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="a folder of images, or a video")
    parser.add_argument("dataset", nargs="?", type=Path, help="folder for the dataset")
    parser.add_argument("--capture", type=name_argument, help="a capture in data/raw instead")
    add_override_option(parser)
    args = parser.parse_args()
    if (args.capture is None) == (args.dataset is None):
        parser.error("name SOURCE and DATASET, or --capture")

    from stages.scenes.captures.calibration import calibrate_capture, method_of
    from stages.scenes.captures.inputs import as_images
    from stages.scenes.captures.video_frames import video_of
    from stages.splat.matching import matcher_of

    params = Params.read(overrides=args.overrides)
    config = params.section("capture_calibrate", CaptureCalibrateConfig)
    if args.capture:
        source, folder = layout.raw(args.capture), layout.capture(args.capture)
    else:
        source, folder = args.source, args.dataset
        if video_of(source) is None:
            check_source(source)
        if os.path.lexists(folder):
            raise UserError(folder, "exists already", expected="a new folder")
        check_apart(source, folder)
        make_target(folder.parent)
    vggt = params.section("vggt", VggtConfig)
    method = method_of(source, config)
    keys, is_video = params.overridden_keys("capture_calibrate"), video_of(source) is not None
    for key, reason in inert_calibration_keys(method, keys, is_video):
        print(f"{folder}: capture_calibrate.{key} has no effect: {reason}")
    for line in params.unread(vggt=params.overridden_keys("vggt") if method == "vggt" else ()):
        print(f"{folder}: {line}")
    predict = None
    if config.method == "vggt":  # other methods do not need torch
        from stages.splat.vggt import predictor

        predict = predictor(vggt)
    choice = "cpu" if method == "given" else config.matcher
    matcher = matcher_of(choice, "capture_calibrate.matcher")
    with (
        at_work(f"calibration of {folder.name}"),
        whole_folder(folder) as scratch,
        as_images(source, config.video_fps) as images,
    ):
        resolved = config.model_copy(update={"method": method})
        metrics = calibrate_capture(images, scratch, resolved, predict, matcher)
    if args.capture:
        write_json(layout.capture_metrics(args.capture, "calibrate"), metrics)
    print(
        f"{folder}: {metrics['method']}, {metrics['registered']} of {metrics['total']} "
        f"images, {metrics['points']} points, {metrics['reprojection_error_px']:.2f} px"
    )


if __name__ == "__main__":
    launch(main)
