"""What became of a submission: a line a stage, and one for each task that runs or went wrong."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stages.jobs import slurm
from stages.jobs.submission import ENDED, Submission
from stages.run.process.locks import holder_of

# What a local run holds in its folder for as long as it lives.
RUN = "run"
_SHOWN = frozenset({"running", "failed", "lost", "stopped"})
_TAIL_BYTES = 4096
_LINE_CHARACTERS = 100
# Of SLURM, for tasks that have no word of their own or did not get to say their last.
_WORDS = {"pending": "waiting", "completed": "done", "requeued": "waiting", "completing": "running"}


@dataclass(frozen=True)
class Row:
    """How one task goes."""

    address: str
    state: str
    node: str
    seconds: float
    line: str


def rows(submission: Submission) -> list[Row]:
    """How every task goes, in the plan's order."""
    known = {}
    if submission.executor == "slurm":
        known = slurm.states(submission.jobs.values())
    return [_row(submission, task.address, known) for task in submission.plan.tasks]


def is_over(row: Row) -> bool:
    """Whether a task will do nothing more."""
    return row.state in ENDED or row.state == "lost"


def table(found: list[Row]) -> str:
    """A line a stage with counts; under it tasks that run or went wrong."""
    stages: dict[str, list[Row]] = {}
    for row in found:
        stages.setdefault(row.address.partition("@")[0], []).append(row)
    width = max(map(len, stages))
    lines = []
    for stage, tasks in stages.items():
        counts = Counter(row.state for row in tasks)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        lines.append(f"{stage:{width}}  {told}")
        for row in tasks:
            if row.state in _SHOWN:
                time_s = f"{row.seconds:.0f} s" if row.seconds else ""
                parts = [row.address, row.state, row.node, time_s, row.line]
                lines.append("  " + "  ".join(filter(None, parts)))
    return "\n".join(lines)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log that are not blank; bars that rewrite their line count once."""
    if not path.is_file():
        return []
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES * max(1, lines // 20)))
        text = log.read().decode(errors="replace")
    found = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in found if line][-lines:]


def _row(submission: Submission, address: str, known: dict[str, tuple[str, str, str]]) -> Row:
    noted = submission.noted(address)
    state, node = _state(submission, address, noted, known)
    seconds = 0.0
    if "began" in noted:
        until = time.time() if state == "running" else noted["time"]
        seconds = until - noted["began"]
    logs = [submission.log(address, kind) for kind in ("out", "err")]
    logs = sorted((path for path in logs if path.is_file()), key=lambda path: path.stat().st_mtime)
    lines = [line for path in logs for line in tail(path, 1)]
    return Row(address, state, node, seconds, lines[-1][:_LINE_CHARACTERS] if lines else "")


def _state(
    submission: Submission, address: str, noted: dict, known: dict[str, tuple[str, str, str]]
) -> tuple[str, str]:
    """A task's own last word, unless the cluster knows better."""
    told, node = noted.get("state", ""), noted.get("node", "")
    if told in ENDED:
        return told, node
    if submission.executor == "local":
        alive = holder_of(submission.folder / RUN) is not None
        return (told or "waiting", node) if alive else ((told and "lost") or "cancelled", node)
    if submission.jobs[address] not in known:
        # Purged from the cluster's memory without a last word of its own.
        return ("lost" if told else "cancelled"), node
    state, where, reason = known[submission.jobs[address]]
    if state == "pending" and reason.startswith("DependencyNeverSatisfied"):
        return "cancelled", node
    word = _WORDS.get(state, state)
    return ("failed" if word in ("timeout", "node_fail", "out_of_memory") else word), where or node
