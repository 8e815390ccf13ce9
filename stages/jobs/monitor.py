"""`status`, `logs` and `cancel` of submissions, from any shell of the workspace."""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from stages.jobs import slurm, task_states
from stages.jobs.recording import record_all
from stages.jobs.submission import Submission, read_submission
from stages.run.errors import UserError
from stages.run.process.locks import holder_of
from stages.run.settings.params import did_you_mean

_LOGGER = logging.getLogger(__name__)


def status(number: str, targets: Sequence[str]) -> None:
    """Log the states of a submission's tasks; what has ended is in dvc.lock then."""
    submission = read_submission(number)
    record_all(submission.root)
    chosen = set(_chosen(submission, targets))
    tasks = [task for task in task_states.task_states(submission) if task.address in chosen]
    _LOGGER.info(f"submission {submission.number}, {submission.executor}, {submission.root}")
    _LOGGER.info(task_states.table(tasks))


def record(number: str, targets: Sequence[str]) -> None:
    """Write all results of ended jobs into dvc.lock of this folder, whichever submission's."""
    record_all(Path.cwd())


def logs(number: str, targets: Sequence[str], lines: int) -> None:
    """Log the last lines of tasks' logs; without targets, of those that failed or run."""
    submission = read_submission(number)
    chosen = _chosen(submission, targets)
    if not targets:
        wanted = ("failed", "lost", "running")
        chosen = [row.address for row in task_states.task_states(submission) if row.state in wanted]
        if not chosen:
            _LOGGER.info("no task runs or failed; name a stage to see its log")
    for address in chosen:
        for kind in ("out", "err"):
            path = submission.log(address, kind)
            _LOGGER.info(f"== {address}: {os.path.relpath(path)}")
            _LOGGER.info("\n".join(task_states.tail(path, lines) or ["(empty)"]))


def cancel(number: str, targets: Sequence[str]) -> None:
    """Cancel a submission or some of its tasks, and all tasks that depend on them."""
    submission = read_submission(number)
    queue = slurm.queue() if submission.executor == "slurm" else {}
    states = task_states.task_states(submission, queue)
    chosen = set(_chosen(submission, targets))
    alive = [
        row.address for row in states if row.address in chosen and not task_states.is_over(row)
    ]
    # And the one that records; SLURM may have lost the end of a job whose tasks have all ended.
    jobs = {submission.jobs[address] for address in alive}
    jobs |= set() if targets else task_states.living_jobs(submission, queue)
    if not (alive or jobs):
        _LOGGER.info("no task waits or runs")
        return
    if submission.executor == "local":
        if targets:
            raise UserError(
                "cancel", "a local run is cancelled as a whole", fix="leave out the targets"
            )
        _stop(submission)
    else:
        slurm.cancel(sorted(jobs))
        # With its job ends each task that was packed or grouped with a chosen one.
        alive = [
            row.address
            for row in states
            if submission.jobs[row.address] in jobs and not task_states.is_over(row)
        ]
        if not targets:
            record_all(submission.root)  # the job that would is among them
    _LOGGER.info(f"cancelled: {', '.join(alive or sorted(jobs))}")


def unfinished(submission: Submission, queue: slurm.Queue) -> set[str]:
    """Tasks that still wait or run, or that SLURM will run again."""
    if submission.is_over and queue.keys().isdisjoint(submission.jobs.values()):
        return set()
    states = task_states.task_states(submission, queue)
    left = {row.address for row in states if not task_states.is_over(row)}
    if not left:
        submission.end()
    return left


def _stop(submission: Submission) -> None:
    """Stop a local run, but never another process that has its number, here or elsewhere."""
    holder = holder_of(submission.folder / task_states.RUN)
    if holder is None:
        return
    process = holder.process
    if not process.is_here:
        raise UserError(
            "cancel",
            f"a local run elsewhere: {holder}",
            fix=f"log in to {process.host}, or to the container that it runs in",
        )
    if process.is_alive():
        os.kill(process.pid, signal.SIGTERM)


def _chosen(submission: Submission, targets: Sequence[str]) -> list[str]:
    addresses = [task.address for task in submission.plan.tasks]
    known = {*addresses, *(address.partition("@")[0] for address in addresses)}
    for target in targets:
        if target not in known:
            raise UserError(
                target,
                f"not in submission {submission.number}",
                hint=did_you_mean(target, sorted(known)),
                fix="see `python -m stages.submit status`",
            )
    wanted = set(targets)
    return [
        address
        for address in addresses
        if not wanted or {address, address.partition("@")[0]} & wanted
    ]
