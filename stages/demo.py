"""Stage `demo`: ray-trace one embedded sequence in Hi4D's raw layout, data/demo/<scene>."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.embedded_data import place_embedded_data
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.plurals import counted
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.demo.config import DemoConfig


def main() -> None:
    """Write data/demo/<scene>, and its copy data/raw/<scene>."""
    parser = Arguments(description=__doc__)
    parser.add_argument(
        "--scene", type=name_argument, required=True, help="such as hi4d_pair15_fight"
    )
    scene = parser.parse_args().scene

    from stages.scenes.demo.sequence import write_sequence

    config = Params.read().section("demo", DemoConfig)
    with cost("demo", scene), whole_folder(layout.demo(scene)) as folder:
        write_sequence(scene, config, folder)
    place_embedded_data(layout.embedded(scene))
    frames = counted(config.frames, "frame")
    print(f"{scene}: {frames} of 8 cameras, {config.width_px}x{config.height_px} px")


if __name__ == "__main__":
    launch(main)
