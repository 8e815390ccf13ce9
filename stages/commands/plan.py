"""Plan of `dvc repro`: what would run and why, with estimates of time and disk space."""

from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.plurals import counted


def main() -> None:
    """Print the plan. Raises UserError when its results do not fit on the disk."""
    parser = Arguments(description=__doc__)
    parser.add_argument("target", nargs="?", help="a stage, such as compare, train or train@SCENE")
    parser.add_argument(
        "--record", action="store_true", help="write metrics/costs.json from the last runs here"
    )
    args = parser.parse_args()

    from stages.graph.repository import of_targets, stage_statuses
    from stages.graph.settings import read_settings
    from stages.run import layout
    from stages.run.settings.fan_out import require_names
    from stages.run.settings.params import Params
    from stages.workspace.backbones import missing_notes
    from stages.workspace.costs import read_costs, record
    from stages.workspace.probes import link_types
    from stages.workspace.repro_plan import plan, plan_text, require_room

    params = Params.read()
    require_names(params)
    selected = stage_statuses()
    if args.record:
        print(f"{layout.COSTS}: {counted(record(selected, layout.COSTS), 'stage')}")
        return
    if args.target:
        selected = of_targets(selected, [args.target])
    settings = read_settings()
    assert settings is not None, "the repository was opened and has no settings"
    linked = set(settings.link_types) & set(link_types(settings.cache))
    copies = 1 if linked else 2
    planned = plan(selected, read_costs(layout.COSTS))
    text = plan_text(planned, copies, settings.cache)
    print(text, *missing_notes(params.raw), sep="\nnote: ")
    require_room(planned, copies, settings.cache)


if __name__ == "__main__":
    launch(main)
