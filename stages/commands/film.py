"""Render a film of a scene along views that were kept in its viewer page (keys K and S)."""

from dataclasses import replace
from pathlib import Path

from stages.pages.config import ShowConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.plurals import counted
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.run.user_paths import check_new_file, make_target
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Write OUTPUT, with `show.video`'s number of frames, rate and size."""
    parser = Arguments(description=__doc__)
    parser.add_argument("scene", type=name_argument, help="an evaluated scene")
    parser.add_argument("path", type=Path, help="the file that key S of viewer.html saved")
    parser.add_argument("output", type=Path, help="the film, a new .mp4")
    parser.add_argument("--method", help="one with Gaussians of its own; default all side by side")
    add_override_option(parser)
    args = parser.parse_args()
    check_new_file(args.output, ".mp4")

    from stages.scenes.formats.video import write_video
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.viewing.kept_views import read_path
    from stages.splat.viewing.models import SceneModels
    from stages.splat.viewing.scene_folders import SceneFolders

    params = Params.read(overrides=args.overrides)
    config, study = params.section("show", ShowConfig), params.section("study", StudyConfig)
    folders = SceneFolders(
        layout.scene(args.scene),
        layout.calibrated(args.scene),
        layout.splats(args.scene),
        {method: layout.novel_views(args.scene, method) for method in study.methods},
    )
    methods = folders.with_gaussians()
    if args.method is not None:
        if args.method not in methods:
            raise UserError("--method", repr(args.method), expected=f"one of {', '.join(methods)}")
        methods = (args.method,)
        folders = replace(folders, novel_views={args.method: folders.novel_views[args.method]})
    timestamps, video = Scene.read(folders.scene).timestamps, config.video
    count = max(video.frames, 1)
    for line in params.unread():
        print(f"{args.output}: {line}")
    path = read_path(args.path, args.scene, timestamps, count, video.max_side_px)
    make_target(args.output.resolve().parent)
    backend, _ = choose_backend(config.backend)
    models = SceneModels.read(folders, timestamps)
    films = models.films(path, video.max_side_px, backend)
    write_video(args.output, list(films.values())[-1], video.fps)  # the last is of all methods
    print(f"{args.output}: {counted(count, 'frame')} of {', '.join(methods)}")


if __name__ == "__main__":
    launch(main)
