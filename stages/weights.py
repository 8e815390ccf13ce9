"""Stage `weights`: data/weights, the backbones of LPIPS or the reason why they are missing."""

import sys

from stages.quality.config import WeightsConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder
from stages.run.settings.params import Params


def main() -> None:
    """Write data/weights."""
    Arguments(description=__doc__).parse_args()

    from stages.quality.metrics.weights import collect, remedy

    config = Params.read().section("weights", WeightsConfig)
    with whole_folder(layout.WEIGHTS) as folder:
        marker = collect(config, folder)
    for net, entry in marker.items():
        if entry["found"]:
            print(f"{net}: from {entry['from']}, sha256 {entry['sha256'][:12]}")
        else:
            print(f"WARNING: {net}: not found, LPIPS will be empty", file=sys.stderr)
            print(f"  {entry['reason']}\n  fix: {remedy(net)}", file=sys.stderr)


if __name__ == "__main__":
    launch(main)
