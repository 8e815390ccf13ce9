"""Stage `demo_capture`: ray-trace the embedded capture and its evaluation set, data/demo."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.embedded_data import place_embedded_data
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.demo.config import DemoCaptureConfig


def main() -> None:
    """Write data/demo/<capture> and data/demo/<capture>_eval, and their copies in data/raw."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--capture", type=name_argument, required=True, help="its name")
    capture = parser.parse_args().capture

    from stages.scenes.demo.capture import write_capture

    config = Params.read().section("demo_capture", DemoCaptureConfig)
    names = [capture, layout.eval_set(capture).name]
    with (
        whole_folder(layout.demo(names[0])) as folder,
        whole_folder(layout.demo(names[1])) as eval_folder,
    ):
        write_capture(config, folder, eval_folder)
    place_embedded_data(layout.embedded(*names))
    print(
        f"{capture}: 2 x {config.photographs} images of {config.width_px}x{config.height_px} "
        f"px, {config.eval_photographs} to evaluate on"
    )


if __name__ == "__main__":
    launch(main)
