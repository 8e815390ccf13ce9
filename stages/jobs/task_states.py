"""States of a submission's tasks, and their table: a line per stage, and per task of interest."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.jobs import slurm
from stages.jobs.submission import ENDED, Submission
from stages.run.process.locks import holder_of

# Lock of a local run in the submission's folder, for as long as it lives.
RUN = "run"
_SHOWN = frozenset({"running", "failed", "lost", "stopped", "held"})
_TAIL_BYTES = 4096
_LINE_CHARACTERS = 100
# SLURM's states; its other ones of ended jobs are failures, those of living jobs its own words.
_WORDS = {"pending": "waiting", "completed": "done", "completing": "running"}
_WORDS |= {"cancelled": "cancelled", "requeued": "waiting", "requeue_hold": "held"}


@dataclass(frozen=True)
class TaskState:
    """The state of one task."""

    address: str
    state: str
    node: str
    seconds: float
    line: str


def task_states(submission: Submission, queue: slurm.Queue | None = None) -> list[TaskState]:
    """State of every task, in the plan's order.

    Args:
        submission: The submission.
        queue: SLURM's jobs, if the caller has them already.
    """
    if queue is None:
        queue = slurm.queue() if submission.executor == "slurm" else {}
    tasks_of = Counter(submission.jobs.values())
    return [
        _row(submission, task.address, queue, tasks_of[submission.jobs.get(task.address, "")] > 1)
        for task in submission.plan.tasks
    ]


def living_jobs(submission: Submission, queue: slurm.Queue) -> set[str]:
    """Jobs of a submission that SLURM has as waiting or running, with the one that records."""
    names = {job: _name(submission, address) for address, job in submission.jobs.items()}
    names |= {submission.recorder: slurm.RECORD}
    return {job for job, name in names.items() if _is_alive(submission, queue.get(job), name)}


def _is_alive(submission: Submission, job: slurm.Job | None, name: str) -> bool:
    return job is not None and job.is_alive and _is_ours(submission, job, name)


def is_over(task: TaskState) -> bool:
    """Whether a task has ended."""
    return task.state in ENDED or task.state == "lost"


def table(states: list[TaskState]) -> str:
    """A line per stage with counts, followed by its tasks that run or failed."""
    # Stages in the plan's order; their items by name, as DVC plans these in any order.
    stages: dict[str, list[TaskState]] = {row.address.partition("@")[0]: [] for row in states}
    for row in sorted(states, key=lambda row: row.address):
        stages[row.address.partition("@")[0]].append(row)
    width = max(map(len, stages))
    lines = []
    for stage, tasks in stages.items():
        counts = Counter(row.state for row in tasks)
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        lines.append(f"{stage:{width}}  {summary}")
        for row in tasks:
            if row.state in _SHOWN:
                time_s = f"{row.seconds:.0f} s" if row.seconds else ""
                parts = [row.address, row.state, row.node, time_s, row.line]
                lines.append("  " + "  ".join(filter(None, parts)))
    return "\n".join(lines)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log that are not blank; a progress bar counts as one line."""
    if not path.is_file():
        return []
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES * max(1, lines // 20)))
        text = log.read().decode(errors="replace")
    texts = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in texts if line][-lines:]


def _row(submission: Submission, address: str, queue: slurm.Queue, shares_job: bool) -> TaskState:
    noted = submission.noted(address)
    job = _job(submission, address, queue)
    if submission.executor == "local":
        state, node = _local_state(submission, noted), noted.get("node", "")
    else:
        state, node = _state(noted, job)
        if shares_job and state == "running":  # of its job; another task of it may
            state = noted.get("state", "waiting")
    if state == "held" and job is not None:
        line = f"{job.reason}; `scontrol release {submission.jobs[address]}` lets it run"
        return TaskState(address, state, "", 0.0, line)
    seconds = 0.0
    if "began" in noted:
        until = time.time() if state == "running" else noted["time"]
        seconds = until - noted["began"]
    logs = [submission.log(address, kind) for kind in ("out", "err")]
    logs = sorted((path for path in logs if path.is_file()), key=lambda path: path.stat().st_mtime)
    lines = [line for path in logs for line in tail(path, 1)]
    return TaskState(address, state, node, seconds, lines[-1][:_LINE_CHARACTERS] if lines else "")


def _job(submission: Submission, address: str, queue: slurm.Queue) -> slurm.Job | None:
    """The task's job; another one with its number, as after a reinstallation, is not meant."""
    job = queue.get(submission.jobs.get(address, ""))
    is_ours = job is not None and _is_ours(submission, job, _name(submission, address))
    return job if is_ours else None


def _name(submission: Submission, address: str) -> str:
    """SLURM's name of a task's job."""
    return submission.names.get(address, address.partition("@")[0])


def _is_ours(submission: Submission, job: slurm.Job, name: str) -> bool:
    return (job.name, job.folder) == (name, str(submission.root))


def _local_state(submission: Submission, noted: dict[str, Any]) -> str:
    state = noted.get("state", "")
    if state in ENDED:
        return state
    if holder_of(submission.folder / RUN) is not None:
        return state or "waiting"
    return (state and "lost") or "cancelled"


def _state(noted: dict[str, Any], job: slurm.Job | None) -> tuple[str, str]:
    """What SLURM says while it has a task's job alive, else the task's last note.

    A task cannot know what SLURM does after its note: it may be queued again, even when it ended.
    """
    state, node = noted.get("state", ""), noted.get("node", "")
    if job is not None and job.is_alive:
        if job.state == "pending" and job.reason.startswith("DependencyNeverSatisfied"):
            return "cancelled", node
        if job.state == "pending" and ("held" in job.reason or job.reason.startswith("JobHeld")):
            return "held", ""
        return _WORDS.get(job.state, job.state), job.node or node
    if state in ENDED:
        return state, node
    if job is None:
        # The cluster has forgotten it, and its last note is not an end.
        return ("lost" if state else "cancelled"), node
    return _WORDS.get(job.state, "failed"), job.node or node
