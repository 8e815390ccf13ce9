"""What `dvc repro` would run and why, how long it would take and how much disk, before it runs."""

import argparse

from stages.run.entry import launch
from stages.run.errors import UserError


def main() -> None:
    """Print the plan; end with an error when its results do not fit on the disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", help="a stage, such as compare or train@SCENE")
    parser.add_argument(
        "--record", action="store_true", help="write metrics/costs.json from the last runs here"
    )
    given = parser.parse_args()

    from stages.run import layout
    from stages.run.settings.fan_out import require_names
    from stages.run.settings.params import Params, did_you_mean
    from stages.workspace.costs import read_costs, record
    from stages.workspace.probes import link_types
    from stages.workspace.repository import needed, steps
    from stages.workspace.repro_plan import plan, require_room, told
    from stages.workspace.settings import read_settings

    require_names(Params.read())
    found = steps()
    if given.record:
        print(f"{layout.COSTS}: {record(found, layout.COSTS)} stages")
        return
    if given.target:
        names = [step.name for step in found]
        wanted = needed(found, given.target)
        if not wanted:
            raise UserError(given.target, "no such stage", expected="a name of `dvc stage list`",
                            hint=did_you_mean(given.target, names))  # fmt: skip
        found = wanted
    settings = read_settings()
    assert settings is not None, "the repository was opened and has no settings"
    linked = set(settings.link_types) & set(link_types(settings.cache))
    copies = 1 if linked else 2
    planned = plan(found, read_costs(layout.COSTS))
    print(told(planned, copies, settings.cache))
    require_room(planned, copies, settings.cache)


if __name__ == "__main__":
    launch(main)
