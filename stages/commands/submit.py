"""Submit the stale part of the graph to SLURM, or run it here with several tasks at once.

`python -m stages.submit status|logs|cancel` show and cancel submissions; `record` writes what has
ended into dvc.lock, as the last job and `status` do;
`python -m stages.submit script slurm/NAME.slurm ...` submits one of the ready scripts.
"""

import sys
from argparse import RawDescriptionHelpFormatter

from stages.run.arguments import Arguments
from stages.run.entry import launch

_PROGRAM = "python -m stages.submit"


def main() -> None:
    """Submit what `dvc repro TARGETS` would run, or show or cancel submissions."""
    from stages.jobs.verbs import answered

    words = sys.argv[1:]
    if answered(_PROGRAM, words):
        return
    parser = Arguments(_PROGRAM, description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("targets", nargs="*", help="stages, `stage@item` or patterns; default: all")
    add("--local", action="store_true", help="run here instead of on a cluster")
    add("--jobs", type=int, default=2, metavar="N", help="tasks at once with --local (default: 2)")
    add("--dry-run", action="store_true", help="print the plan; submit and run nothing")
    add("--throttle", type=int, metavar="N", help="most tasks of one array at once")
    add("-n", "--name", help="run as this experiment, in a git worktree of its own")
    change = "change a param of the experiment, as `dvc exp run -S`; repeatable"
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help=change)
    args = parser.parse_args(words)
    if args.jobs < 1 or (args.throttle or 0) < 0:
        parser.error("--jobs and --throttle take positive numbers")

    from stages.jobs.submit import SubmitOptions, send

    if args.set_param:
        _require_valid_settings(args.set_param)
    sys.exit(send(SubmitOptions(**vars(args))))


def _require_valid_settings(settings: list[str]) -> None:
    """Raise UserError for values that `stages.check` would refuse; it knows this study alone."""
    from stages.check import judged
    from stages.run.settings.params import Params
    from stages.workspace.arms import require_valid_settings

    require_valid_settings(settings, Params.read, judged)


if __name__ == "__main__":
    launch(main)
