"""A submitted plan: `<work root>/jobs/<number>/` holds the plan and the states of its tasks.

Each task writes its own file there, on any host, so `status` does not need the cluster's
accounting, and no file has two writers at once.
"""

import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.jobs.plan import JobPlan, Task
from stages.run.errors import UserError
from stages.run.files import read_json, text_hash, work_root, write_json

LOGS = Path("slurm_logs")
# Final states of a task.
ENDED = frozenset({"done", "up to date", "failed", "cancelled"})


@dataclass(frozen=True)
class Submission:
    """A submitted plan. Paths are absolute: jobs start in other folders and on other hosts."""

    folder: Path
    root: Path  # the workspace that the stages run in
    logs: Path
    executor: str  # slurm or local
    plan: JobPlan
    jobs: dict[str, str]  # names of jobs by address, such as 17_3
    process: int = 0  # of a local run
    host: str = ""  # that it was submitted from
    names: dict[str, str] = field(default_factory=dict)  # SLURM's names of jobs by address
    recorder: str = ""  # the job that records, after all others

    @property
    def number(self) -> str:
        """Its name in `status 3`."""
        return self.folder.name

    def task(self, address: str) -> Task:
        """The task of an address. Raises UserError when there is none."""
        for task in self.plan.tasks:
            if task.address == address:
                return task
        raise UserError(
            address,
            f"no task of submission {self.number}",
            expected=f"one of {', '.join(task.address for task in self.plan.tasks)}",
        )

    def log(self, address: str, kind: str) -> Path:
        """Log file of a task; `kind` is `out` or `err`."""
        return self.logs / f"{self.jobs[address]}.{kind}"

    def save(self) -> None:
        """Write the submission."""
        values = {"root": str(self.root), "logs": str(self.logs), "executor": self.executor}
        values |= {"process": self.process, "host": self.host, "names": self.names}
        values |= {"recorder": self.recorder}
        write_json(
            self._file("submission"), values | {"jobs": self.jobs, "plan": self.plan.as_json()}
        )

    def note(self, address: str, state: str, **details: Any) -> None:
        """Record the state of a task."""
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        values = {"state": state, "node": node, "time": time.time(), **details}
        write_json(self._file(f"task.{address}"), values)

    def noted(self, address: str) -> dict[str, Any]:
        """The last record of a task; empty before it begins."""
        path = self._file(f"task.{address}")
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return {}

    @property
    def is_over(self) -> bool:
        """Whether all tasks had ended when somebody looked; SLURM may still queue one again."""
        return (self.folder / "over").exists()

    def end(self) -> None:
        """Mark that all tasks have ended, so that the next look is short."""
        (self.folder / "over").touch()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def new_folder() -> Path:
    """An empty folder for the next submission, numbered from 1."""
    jobs = _jobs_folder()
    jobs.mkdir(parents=True, exist_ok=True)
    number = max((int(folder.name) for folder in _folders()), default=0)
    while True:
        number += 1
        folder = jobs / str(number)
        try:
            folder.mkdir()
        except FileExistsError:  # another submission took it just now
            continue
        return folder


def lock_of(root: Path) -> Path:
    """Path to lock in the workspace `root` from planning until the submission is visible."""
    return _jobs_folder() / f"plan-{text_hash(str(root))[:16]}"


def read_submission(number: str = "") -> Submission:
    """A submission by its number, or the last one. Raises UserError when there is none."""
    folders = {folder.name: folder for folder in _folders()}
    name = number or max(folders, key=int, default="")
    if name not in folders:
        known = ", ".join(sorted(folders, key=int))
        raise UserError(
            _jobs_folder(),
            f"no submission {name}" if known else "no submission yet",
            expected=f"one of {known}" if known else "",
            fix="name one of these" if known else "send one by `python -m stages.submit`",
        )
    return read_folder(folders[name])


def submissions() -> list[Submission]:
    """All submissions of this workspace in order."""
    return [
        read_folder(folder) for folder in sorted(_folders(), key=lambda folder: int(folder.name))
    ]


def read_folder(folder: Path) -> Submission:
    """The submission in a folder."""
    values = read_json(folder / "submission.json")
    return Submission(
        folder,
        Path(values["root"]),
        Path(values["logs"]),
        values["executor"],
        JobPlan.from_json(values["plan"]),
        values["jobs"],
        values["process"],
        values["host"],
        values.get("names", {}),
        values.get("recorder", ""),
    )


def _folders() -> list[Path]:
    # Without the file a submission is not complete, or was refused.
    files = _jobs_folder().glob("*/submission.json")
    return [path.parent for path in files if path.parent.name.isdecimal()]


def _jobs_folder() -> Path:
    return work_root().resolve() / "jobs"
