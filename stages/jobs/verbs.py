"""What `python -m stages.submit` does with submissions beside sending them."""

from argparse import REMAINDER
from pathlib import Path

from stages.run.arguments import Arguments


def answered(program: str, words: list[str]) -> bool:
    """Do what `status`, `logs`, `cancel`, `record` or `script` ask for; False for other words."""
    bare = [word for word in words if word != "--local"]  # submissions of either kind are numbered
    if words[:1] == ["script"]:
        _script(program, words)
    elif words == ["record"]:
        _record()
    elif bare[:1] in (["status"], ["logs"], ["cancel"]):
        _follow(program, bare)
    else:
        return False
    return True


def _script(program: str, words: list[str]) -> None:
    """Submit a script of slurm/ with the partition, account and nodes of `slurm.default`."""
    parser = Arguments(program)
    add = parser.add_argument
    add("command", choices=("script",), help="submit a script")
    add("script", help="such as slurm/dual_training.slurm")
    add("arguments", nargs=REMAINDER, help="of the script")
    args = parser.parse_args(words)

    from stages.jobs.submit import send_script

    print(send_script(args.script, args.arguments))


def _record() -> None:
    """Write all results of ended jobs into dvc.lock of this folder."""
    from stages.jobs.recording import record_all

    record_all(Path.cwd())


def _follow(program: str, words: list[str]) -> None:
    """Show the states or logs of a submission, or cancel it."""
    parser = Arguments(program)
    add = parser.add_argument
    add("command", choices=("status", "logs", "cancel"), help="what to do")
    add("targets", nargs="*", help="stages or `stage@item`; default: all, of logs all that failed")
    add("--number", default="", help="of the submission; default: the last")
    add("--lines", type=int, default=20, metavar="N", help="of each log (default: 20)")
    args = parser.parse_args(words)

    from stages.jobs import monitor

    if args.command == "logs":
        monitor.logs(args.number, args.targets, args.lines)
    else:
        getattr(monitor, args.command)(args.number, args.targets)
