"""Stage `novel_views`: pictures of the target cameras, data/novel_views/<scene>/<method>."""

import argparse

from stages.quality.config import NovelViewsConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import whole_folder
from stages.run.params import Params, did_you_mean
from stages.scenes.study import BUILT_METHODS


def main() -> None:
    """Write data/novel_views/<scene>/<method>."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True, help="a trained scene")
    parser.add_argument("--method", required=True, help="none: the plain splat")
    arguments = parser.parse_args()
    scene, method = arguments.scene, arguments.method

    from stages.scenes.calibration import read_calibration
    from stages.scenes.scene import Scene
    from stages.splat.novel_views import draw_targets
    from stages.splat.raster import choose_backend

    config = Params.read().section("novel_views", NovelViewsConfig)
    if method not in BUILT_METHODS:
        raise UserError(
            "--method",
            repr(method),
            expected=f"one of {', '.join(BUILT_METHODS)}",
            hint=did_you_mean(method, list(BUILT_METHODS)),
            fix="edit study.methods in params.yaml, then run `python -m stages.check`",
        )
    prepared = Scene.read(layout.scene(scene))
    prepared.cameras("target")
    calibration = read_calibration(layout.calibrated(scene))
    backend, reason = choose_backend(config.backend)
    with whole_folder(layout.novel_views(scene, method)) as folder:
        info = draw_targets(prepared, calibration, layout.splats(scene), folder, config, backend)
    print(f"{scene}: {info['views']} views, {' and '.join(info['kinds'])}, on {backend} ({reason})")


if __name__ == "__main__":
    launch(main)
