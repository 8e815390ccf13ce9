"""Stage `show`: a scene's viewer, videos and files for other viewers, beside the report."""

import sys
from typing import TYPE_CHECKING

from stages.pages.config import ShowConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig

if TYPE_CHECKING:
    from stages.pages.viewer.page import Model
    from stages.splat.viewing.models import SceneModels


def main() -> None:
    """Write metrics/report/scenes/<scene>."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="an evaluated scene")
    scene = parser.parse_args().scene

    from stages.pages.viewer.page import truth_images, viewer_page
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.viewing.models import SceneModels
    from stages.splat.viewing.scene_folders import SceneFolders
    from stages.splat.viewing.video import write_video

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("show", ShowConfig)
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
        content = page_models(models, config.max_gaussians), models.cameras()
        text = viewer_page(scene, *content, truth_images(views, config.truth_side_px))
        (folder / "viewer.html").write_text(text)
        models.export(folder, config.exports)
        if video.frames:
            backend, _ = choose_backend(config.backend)
            videos = models.films(video.frames, video.max_side_px, backend)
            try:
                for name, images in videos.items():
                    write_video(folder / f"{name}.mp4", images, video.fps)
            except (OSError, RuntimeError) as error:  # of the encoder; the viewer works without
                print(f"WARNING: {scene}: no video: {error}", file=sys.stderr)
        files = sorted(folder.iterdir())
        size_mb = sum(path.stat().st_size for path in files) / 1e6
    print(f"{scene}: {', '.join(path.name for path in files)}; {size_mb:.1f} MB")


def page_models(scene: "SceneModels", most: int) -> "list[Model]":
    """All Gaussians of a scene as the page's viewer takes them."""
    from stages.pages.viewer.page import Model
    from stages.splat.viewing.packing import pack

    models = []
    for (method, timestamp), gaussians in scene.gaussians.items():
        packed = pack(gaussians, most)
        background = gaussians.metadata.get("background", [0.0, 0.0, 0.0])
        content = packed.count, packed.low, packed.high, packed.data
        models.append(Model(method, timestamp, *content, gaussians.antialiased, background))
    return models


if __name__ == "__main__":
    launch(main)
