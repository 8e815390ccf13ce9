"""Stage `static_demo`: ray-trace one embedded static scene, data/demo/<scene>."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.embedded_data import place_embedded_data
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.plurals import counted
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.static.config import StaticDemoConfig


def main() -> None:
    """Write data/demo/<scene>/static, and its copy data/raw/<scene>."""
    parser = Arguments(description=__doc__)
    parser.add_argument(
        "--scene", type=name_argument, required=True, help="such as static_pair02_talk"
    )
    scene = parser.parse_args().scene

    from stages.scenes.demo.static_scene import write_static_scene

    config = Params.read().section("static_demo", StaticDemoConfig)
    with whole_folder(layout.demo(scene)) as folder:
        count = write_static_scene(scene, config, folder)
    place_embedded_data(layout.embedded(scene))
    print(f"{scene}: {counted(count, 'image')}, {config.width_px}x{config.height_px} px")


if __name__ == "__main__":
    launch(main)
