"""Stage `show`: a scene's viewer, videos and files for other viewers, beside the report."""

import sys

from stages.pages.config import ShowConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Write metrics/report/scenes/<scene>."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="an evaluated scene")
    scene = parser.parse_args().scene

    from stages.pages.viewer.page import Model, truth_images, viewer_page
    from stages.scenes.formats.video import write_video
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.viewing.models import SceneModels
    from stages.splat.viewing.recording import check_available
    from stages.splat.viewing.scene_folders import SceneFolders

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("show", ShowConfig)
    if "rrd" in config.exports:
        check_available()
    folders = SceneFolders(
        layout.scene(scene),
        layout.calibrated(scene),
        layout.splats(scene),
        {method: layout.novel_views(scene, method) for method in study.methods},
    )
    prepared = Scene.read(folders.scene)
    models = SceneModels.read(folders, prepared.timestamps)
    video = config.video
    with cost("show", scene), whole_folder(layout.shown(scene)) as folder:
        views = [*prepared.views("source"), *prepared.views("target")]
        content = [Model(*one) for one in models.packed(config.max_gaussians)], models.cameras()
        text = viewer_page(scene, *content, truth_images(views, config.truth_side_px))
        (folder / "viewer.html").write_text(text)
        models.export(folder, config.exports)
        if "rrd" in config.exports:
            models.record(folder / f"{scene}.rrd", prepared, folders)
        if video.frames:
            backend, _ = choose_backend(config.backend)
            videos = models.films(models.orbit(video.frames), video.max_side_px, backend)
            try:
                for name, images in videos.items():
                    write_video(folder / f"{name}.mp4", images, video.fps)
            except (OSError, RuntimeError) as error:  # of the encoder; the viewer works without
                print(f"WARNING: {scene}: no video: {error}", file=sys.stderr)
        files = sorted(folder.iterdir())
        size_mb = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
    print(f"{scene}: {', '.join(path.name for path in files)}; {size_mb:.1f} MB")


if __name__ == "__main__":
    launch(main)
