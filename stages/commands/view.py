"""View a trained scene in the browser: orbit, switch method and time, look through any camera."""

import threading

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, did_you_mean
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Serve the viewer until Ctrl-C."""
    parser = Arguments(description=__doc__)
    parser.add_argument("scene", type=name_argument, help="a scene of study.evaluated_scenes")
    parser.add_argument("--method", help="the initial method; default the first of study.methods")
    parser.add_argument("--port", type=int, default=8080, help="8080, or the next free one")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    args = parser.parse_args()

    study = Params.read().section("study", StudyConfig)
    if args.scene not in study.evaluated_scenes:
        raise UserError(
            args.scene,
            "not a scene with novel views",
            expected=f"one of {', '.join(study.evaluated_scenes)}",
            hint=did_you_mean(args.scene, list(study.evaluated_scenes)),
        )

    from stages.splat.viewing.live_scene import LiveScene
    from stages.splat.viewing.scene_folders import SceneFolders
    from stages.splat.viewing.serving import address_lines, check_address
    from stages.splat.viewing.viewer import Viewer

    check_address(args.host, args.port)
    folders = SceneFolders(
        layout.scene(args.scene),
        layout.calibrated(args.scene),
        layout.splats(args.scene),
        {method: layout.novel_views(args.scene, method) for method in study.methods},
        {method: layout.view_metrics(args.scene, method) for method in study.methods},
    )
    scene = LiveScene(folders)
    if args.method and args.method not in scene.methods:
        raise UserError(
            "--method", repr(args.method), expected=f"one of {', '.join(scene.methods)}"
        )
    viewer = Viewer(scene, args.host, args.port, args.method)
    print(*address_lines(args.scene, viewer.port), sep="\n", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM: that is how a viewer ends
        viewer.server.stop()


if __name__ == "__main__":
    launch(main)
