"""Stage `raw`: copy embedded data to the raw data, unless the user's own data is there."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.embedded_data import place_embedded_data
from stages.run.entry import launch
from stages.run.settings.names import name_argument


def main() -> None:
    """Copy data/demo/<scene> to data/raw/<scene>; for a capture its evaluation set as well."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, help="an embedded sequence or static scene")
    parser.add_argument("--capture", type=name_argument, help="an embedded capture instead")
    args = parser.parse_args()
    if (args.scene is None) == (args.capture is None):
        parser.error("name --scene or --capture")
    names = [args.scene] if args.scene else [args.capture, layout.eval_set(args.capture).name]
    place_embedded_data(layout.embedded(*names))
    print(f"{', '.join(str(layout.raw(name)) for name in names)}: the demo's own data")


if __name__ == "__main__":
    launch(main)
