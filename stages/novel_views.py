"""Stage `novel_views`: renders of the plain splat at the target cameras, method `none`."""

from stages.quality.config import NovelViewsConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.methods import PLAIN
from stages.run.plurals import counted
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params


def main() -> None:
    """Write data/novel_views/<scene>/none."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a trained scene")
    scene = parser.parse_args().scene

    from stages.scenes.poses.calibration import read_calibration
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.views.novel_views import TargetRenderer, load_gaussians

    config = Params.read().section("novel_views", NovelViewsConfig)
    prepared = Scene.read(layout.scene(scene))
    prepared.cameras("target")  # raises without target cameras
    calibration = read_calibration(layout.calibrated(scene))
    backend, reason = choose_backend(config.backend)
    with cost("novel_views", scene), whole_folder(layout.novel_views(scene, PLAIN)) as folder:
        info = TargetRenderer(prepared, calibration, config, backend).render(
            folder,
            PLAIN,
            lambda timestamp: load_gaussians(layout.splats(scene), timestamp, backend),
        )
    views = counted(info["views"], "view")
    print(f"{scene}: {views}, {' and '.join(info['kinds'])}, on {backend} ({reason})")


if __name__ == "__main__":
    launch(main)
