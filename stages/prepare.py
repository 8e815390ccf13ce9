"""Stage `prepare`: sample, undistort, resize and split one sequence into data/scenes/<scene>."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.splat.config import TrainConfig


def main() -> None:
    """Write data/scenes/<scene>."""
    parser = Arguments(description=__doc__)
    parser.add_argument(
        "--scene", type=name_argument, required=True, help="an entry of `scenes` in params.yaml"
    )
    scene = parser.parse_args().scene

    from stages.scenes.sources.importer import import_scene

    params = Params.read()
    entry = params.entry("scenes", scene, SceneEntry)
    config = params.section("prepare", PrepareConfig)
    background = params.value("train", "background", TrainConfig)
    with cost("prepare", scene), whole_folder(layout.scene(scene)) as folder:
        print(import_scene(scene, entry, config, layout.raw(scene), folder, background))


if __name__ == "__main__":
    launch(main)
