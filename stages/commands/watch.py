"""Watch trainings of Gaussians in the browser while they run, distillation included."""

import time

from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import work_root
from stages.run.trainings import CAMERAS, Trainings

_LOOK_EVERY_S = 1.0


def main() -> None:
    """Serve the newest states of trainings until Ctrl-C; of finished ones their results."""
    parser = Arguments(description=__doc__)
    parser.add_argument("what", nargs="?", default="", help="a scene or capture, or its results")
    parser.add_argument("--wait", action="store_true", help="also where nothing is trained yet")
    parser.add_argument("--port", type=int, default=8080, help="8080, or the next free one")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    args = parser.parse_args()
    trainings = Trainings(work_root(), args.what, with_key=CAMERAS)
    trainings.look()
    if not trainings.known and not args.wait:
        others = Trainings(work_root(), with_key=CAMERAS)
        others.look()
        raise UserError(
            args.what or work_root(),
            "no training has saved a state that is still there",
            expected=f"one of {', '.join(sorted(others.known))}" if others.known else "",
            hint="a finished scene is shown by `python -m stages.view SCENE`; of a finished "
            "capture, splat viewers open train/point_cloud.ply in its results",
            fix="start it first, or wait for its first state with --wait",
        )

    from stages.splat.viewing.serving import address_lines, check_address
    from stages.splat.viewing.viewer import TrainingViewer

    check_address(args.host, args.port)
    viewer = TrainingViewer(trainings, args.host, args.port)
    print(*address_lines(str(work_root().resolve()), viewer.port), sep="\n", flush=True)
    try:
        while True:
            viewer.follow()
            time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM: that is how a viewer ends
        viewer.server.stop()


if __name__ == "__main__":
    launch(main)
