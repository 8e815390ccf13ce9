"""Submit the stale part of the graph to SLURM, or run it here with several tasks at once.

`python -m stages.submit status|logs|cancel` show and cancel submissions, `record` writes what has
ended into dvc.lock; `python -m stages.submit script slurm/NAME.slurm ...` submits a ready script.
"""

import sys
from argparse import REMAINDER, RawDescriptionHelpFormatter

from stages.run.arguments import Arguments
from stages.run.entry import launch

FOLLOW = ("status", "logs", "cancel", "record")


def main() -> None:
    """Submit what `dvc repro TARGETS` would run, or show or cancel submissions."""
    words = sys.argv[1:]
    if words[:1] == ["script"]:
        return script(words)
    bare = [word for word in words if word != "--local"]  # submissions of either kind are numbered
    if {*bare[:1]} & {*FOLLOW}:
        return follow(bare)
    parser = Arguments(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
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

    if args.set_param:  # by the rules of this study, which another repository has not
        from stages.check import judged
        from stages.run.settings.params import Params
        from stages.workspace.arms import require_valid_settings

        require_valid_settings(args.set_param, Params.read, judged)
    from stages.jobs.submit import SubmitOptions, send

    sys.exit(send(SubmitOptions(**vars(args))))


def script(words: list[str]) -> None:
    """Submit a script of slurm/ with the partition, account and nodes of `slurm.default`."""
    parser = Arguments()
    add = parser.add_argument
    add("command", choices=("script",), help="submit a script")
    add("script", help="such as slurm/dual_training.slurm")
    add("arguments", nargs=REMAINDER, help="of the script")
    args = parser.parse_args(words)
    from stages.jobs import submit

    print(submit.send_script(args.script, args.arguments))


def follow(words: list[str]) -> None:
    """Show the states or logs of a submission, or cancel it."""
    parser = Arguments()
    add = parser.add_argument
    add("command", choices=FOLLOW, help="what to do")
    add("targets", nargs="*", help="stages or `stage@item`; default: all, of logs all that failed")
    add("--number", default="", help="of the submission; default: the last")
    add("--lines", type=int, default=20, metavar="N", help="of each log (default: 20)")
    args = parser.parse_args(words)

    from stages.jobs import monitor

    lines = [args.lines] if args.command == "logs" else []
    getattr(monitor, args.command)(args.number, args.targets, *lines)


if __name__ == "__main__":
    launch(main)
