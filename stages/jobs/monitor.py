"""`status`, `logs` and `cancel`: what was sent, followed from any shell of the workspace."""

import os
import signal
from collections.abc import Sequence

from stages.jobs import slurm
from stages.jobs import task_states as report
from stages.jobs.submission import Submission, read_submission
from stages.run.errors import UserError
from stages.run.process.locks import holder_of
from stages.run.settings.params import did_you_mean


def status(number: str, targets: Sequence[str]) -> None:
    """Print how a submission goes."""
    submission = read_submission(number)
    chosen = set(_chosen(submission, targets))
    found = [row for row in report.rows(submission) if row.address in chosen]
    print(f"submission {submission.number}, {submission.executor}, {submission.root}")
    print(report.table(found))


def logs(number: str, targets: Sequence[str], lines: int) -> None:
    """Print the ends of the logs of some tasks; without targets, of those that failed or run."""
    submission = read_submission(number)
    chosen = _chosen(submission, targets)
    if not targets:
        wanted = ("failed", "lost", "running")
        chosen = [row.address for row in report.rows(submission) if row.state in wanted]
        if not chosen:
            print("nothing runs and nothing failed; name a stage to see its log")
    for address in chosen:
        for kind in ("out", "err"):
            path = submission.log(address, kind)
            print(f"== {address}: {os.path.relpath(path)}")
            print("\n".join(report.tail(path, lines) or ["(empty)"]))


def cancel(number: str, targets: Sequence[str]) -> None:
    """Cancel a submission or some of its tasks, with all that depend on them."""
    submission = read_submission(number)
    found = report.rows(submission)
    chosen = set(_chosen(submission, targets))
    alive = [row.address for row in found if row.address in chosen and not report.is_over(row)]
    if not alive:
        print("nothing of it waits or runs")
        return
    if submission.executor == "local":
        if targets:
            raise UserError("cancel", "a local run ends whole", fix="leave the targets out")
        _stop(submission)
    else:
        slurm.cancel([submission.jobs[address] for address in alive])
    print(f"cancelled: {', '.join(alive)}")


def unfinished(submission: Submission) -> set[str]:
    """Tasks that still wait or run."""
    over = submission.folder / "over"
    if over.exists():
        return set()
    left = {row.address for row in report.rows(submission) if not report.is_over(row)}
    if not left:
        over.touch()  # so that the next look is short
    return left


def _stop(submission: Submission) -> None:
    """Stop a local run; never a process that has its number by now, or by another count."""
    holder = holder_of(submission.folder / report.RUN)
    if holder is None:
        return
    process = holder.process
    if not process.is_here:
        raise UserError(
            "cancel", f"a local run elsewhere: {holder}",
            fix=f"log in to {process.host}, or to the container that it runs in",
        )  # fmt: skip
    if process.is_alive():
        os.kill(process.pid, signal.SIGTERM)


def _chosen(submission: Submission, targets: Sequence[str]) -> list[str]:
    every = [task.address for task in submission.plan.tasks]
    known = {*every, *(address.partition("@")[0] for address in every)}
    for target in targets:
        if target not in known:
            raise UserError(
                target, f"not in submission {submission.number}",
                hint=did_you_mean(target, sorted(known)),
                fix="see `python -m stages.submit status`",
            )  # fmt: skip
    wanted = set(targets)
    return [
        address for address in every if not wanted or {address, address.partition("@")[0]} & wanted
    ]
