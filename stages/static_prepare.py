"""Stage `static_prepare`: all images of a static scene in one world frame.

A scene is a folder with static/ in it, or with --scene a name of the graph (data/raw/<scene>).
"""

from contextlib import nullcontext
from pathlib import Path

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json
from stages.run.process.locks import alone
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.scenes.config import VggtConfig
from stages.scenes.static.config import READ_BY, StaticConfig
from stages.splat.config import TrainConfig


def main() -> None:
    """Write the scene's shared folder, unless it exists with the same inputs."""
    parser = Arguments(description=__doc__)
    parser.add_argument("scene_dir", nargs="?", type=Path, help="a folder with static/ in it")
    parser.add_argument(
        "--scene", type=name_argument, help="a scene of the graph instead of SCENE_DIR"
    )
    parser.add_argument("--prep-root", type=Path, help="the shared folder (else static/shared)")
    add_override_option(parser)
    args = parser.parse_args()

    from stages.scenes.static.paths import StaticPaths
    from stages.scenes.static.prepare import prepare
    from stages.splat.captures.static_poses import predict_poses

    params = Params.read(overrides=args.overrides)
    static, vggt = params.section("static", StaticConfig), params.section("vggt", VggtConfig)
    paths = StaticPaths.of(
        args.scene_dir,
        args.scene,
        args.prep_root,
        raw=layout.raw,
        shared=layout.static_shared,
        results=layout.static_results,
    )
    background = params.value("train", "background", TrainConfig)
    for line in params.unread(static=READ_BY["static_prepare"], train=("background",)):
        print(f"{paths.name}: {line}")
    lock = alone(paths.shared) if paths.raw.is_dir() else nullcontext()
    with lock, cost("static_prepare", paths.name):
        metrics, rebuilt = prepare(
            paths.raw,
            paths.shared,
            static,
            lambda images: predict_poses(images, vggt, static.runtime.vggt_cache),
            background,
            # DVC would give its cache a link to the user's file.
            "copy" if paths.in_graph else static.runtime.copy_mode,
            paths.in_graph,
        )
    if paths.in_graph:
        write_json(layout.static_prepare_metrics(paths.name), metrics)
    result = "registered" if rebuilt else "unchanged and kept:"
    print(f"{paths.name}: {result} {metrics['registered']} of {metrics['images']} images")


if __name__ == "__main__":
    launch(main)
