"""States of a submission's tasks, and their table: a line per stage, and per task of interest."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stages.jobs import slurm
from stages.jobs.submission import ENDED, Submission
from stages.run.process.locks import holder_of

# Lock of a local run in the submission's folder, for as long as it lives.
RUN = "run"
_SHOWN = frozenset({"running", "failed", "lost", "stopped"})
_TAIL_BYTES = 4096
_LINE_CHARACTERS = 100
# States of SLURM, for tasks that noted none or could not note their last one.
_WORDS = {"pending": "waiting", "completed": "done", "requeued": "waiting", "completing": "running"}


@dataclass(frozen=True)
class TaskState:
    """The state of one task."""

    address: str
    state: str
    node: str
    seconds: float
    line: str


def task_states(submission: Submission) -> list[TaskState]:
    """State of every task, in the plan's order."""
    known = {}
    if submission.executor == "slurm":
        known = slurm.states(submission.jobs.values())
    return [_row(submission, task.address, known) for task in submission.plan.tasks]


def is_over(task: TaskState) -> bool:
    """Whether a task has ended."""
    return task.state in ENDED or task.state == "lost"


def table(states: list[TaskState]) -> str:
    """A line per stage with counts, followed by its tasks that run or failed."""
    stages: dict[str, list[TaskState]] = {}
    for row in states:
        stages.setdefault(row.address.partition("@")[0], []).append(row)
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


def _row(submission: Submission, address: str, known: dict[str, tuple[str, str, str]]) -> TaskState:
    noted = submission.noted(address)
    state, node = _state(submission, address, noted, known)
    seconds = 0.0
    if "began" in noted:
        until = time.time() if state == "running" else noted["time"]
        seconds = until - noted["began"]
    logs = [submission.log(address, kind) for kind in ("out", "err")]
    logs = sorted((path for path in logs if path.is_file()), key=lambda path: path.stat().st_mtime)
    lines = [line for path in logs for line in tail(path, 1)]
    return TaskState(address, state, node, seconds, lines[-1][:_LINE_CHARACTERS] if lines else "")


def _state(
    submission: Submission, address: str, noted: dict, known: dict[str, tuple[str, str, str]]
) -> tuple[str, str]:
    """A task's last note, or what the cluster says if that is newer."""
    noted_state, node = noted.get("state", ""), noted.get("node", "")
    if noted_state in ENDED:
        return noted_state, node
    if submission.executor == "local":
        alive = holder_of(submission.folder / RUN) is not None
        return (
            (noted_state or "waiting", node)
            if alive
            else ((noted_state and "lost") or "cancelled", node)
        )
    if submission.jobs[address] not in known:
        # The cluster has forgotten it, and its last note is not an end.
        return ("lost" if noted_state else "cancelled"), node
    state, where, reason = known[submission.jobs[address]]
    if state == "pending" and reason.startswith("DependencyNeverSatisfied"):
        return "cancelled", node
    word = _WORDS.get(state, state)
    return ("failed" if word in ("timeout", "node_fail", "out_of_memory") else word), where or node
