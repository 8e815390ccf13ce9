"""Stage `static_table`: static scenes by kinds of camera, with average and standard deviation."""

import sys

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import read_json, write_json, write_tsv
from stages.run.methods import PLAIN, Method
from stages.run.settings.params import Params
from stages.scenes.static.config import StaticConfig


def main() -> None:
    """Write metrics/static/table.json and .tsv, and print the table."""
    parser = Arguments(description=__doc__)
    parser.parse_args()

    from stages.quality.floor import floor_warnings
    from stages.quality.static_table import COLUMNS, averages, label, static_rows, text

    static = Params.read().section("static", StaticConfig)
    methods = [str(Method(fixer, form)) for fixer in static.fixers for form in static.methods]
    means = {
        (scene, label(camera, method)): read_json(layout.static_metrics(scene, camera, method))
        for scene in static.scenes
        for camera in static.cameras
        for method in (PLAIN, *methods)
    }
    rows = static_rows(means)
    write_tsv(layout.static_table(".tsv"), rows, COLUMNS)
    write_json(layout.static_table(".json"), averages(rows))
    print(text(rows))
    for warning in floor_warnings({" ".join(key): of for key, of in means.items()}):
        print(f"WARNING: {warning}", file=sys.stderr)


if __name__ == "__main__":
    launch(main)
