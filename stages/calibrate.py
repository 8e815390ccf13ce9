"""Stage `calibrate`: poses as a user would have them, data/calibrated/<scene>."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.config import CalibrateConfig, VggtConfig


def main() -> None:
    """Write data/calibrated/<scene> and its metrics."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a prepared scene")
    scene = parser.parse_args().scene

    from stages.scenes.poses.scene_calibration import calibrate
    from stages.scenes.scene import Scene
    from stages.splat.matching import matcher_of

    params = Params.read()
    config = params.section("calibrate", CalibrateConfig)
    vggt = params.section("vggt", VggtConfig)
    predict = None
    if config.method == "vggt":  # other methods do not need torch
        from stages.splat.vggt import predictor

        predict = predictor(vggt)
    prepared = Scene.read(layout.scene(scene))
    with cost("calibrate", scene), whole_folder(layout.calibrated(scene)) as folder:
        metrics = calibrate(
            prepared, config, folder, predict, matcher_of(config.matcher, "calibrate.matcher")
        )
    write_json(layout.calibrate_metrics(scene), metrics)
    if metrics["note"]:
        print(f"{scene}: WARNING: {metrics['note']}")
    print(
        f"{scene}: {config.method}, {metrics['registered']} of {metrics['total']} cameras, "
        f"{metrics['points']:.0f} points per timestamp, "
        f"pose error {metrics['rotation_error_deg']:.3f} deg, {metrics['centre_error_m']:.4f} m"
    )


if __name__ == "__main__":
    launch(main)
