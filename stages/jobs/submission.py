"""One plan on its way: `<work root>/jobs/<number>/` says what was sent and how it goes.

Each task writes its own file there, from whatever host it runs on, so `status` needs no
accounting of the cluster, and none of these files has two writers at once.
"""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.jobs.plan import Plan, Task
from stages.run.errors import UserError
from stages.run.files import read_json, text_hash, work_root, write_json

LOGS = Path("slurm_logs")
# States of a task that will not change any more.
ENDED = frozenset({"done", "up to date", "failed", "cancelled"})


@dataclass(frozen=True)
class Submission:
    """What was sent. Paths are absolute: jobs start in other folders and on other hosts."""

    folder: Path
    root: Path  # the workspace that the stages run in
    logs: Path
    executor: str  # slurm or local
    plan: Plan
    jobs: dict[str, str]  # address to the name of its job, such as 17_3
    process: int = 0  # of a local run
    host: str = ""  # where it was sent from

    @property
    def number(self) -> str:
        """Its name in `status 3`."""
        return self.folder.name

    def task(self, address: str) -> Task:
        """The task of an address. Raises UserError when it is not part of this."""
        for task in self.plan.tasks:
            if task.address == address:
                return task
        raise UserError(
            address, f"no task of submission {self.number}",
            expected=f"one of {', '.join(task.address for task in self.plan.tasks)}",
        )  # fmt: skip

    def log(self, address: str, kind: str) -> Path:
        """File of a task's `out` or `err`."""
        return self.logs / f"{self.jobs[address]}.{kind}"

    def save(self) -> None:
        """Write what was sent."""
        told = {"root": str(self.root), "logs": str(self.logs), "executor": self.executor}
        told |= {"process": self.process, "host": self.host}
        write_json(
            self._file("submission"), told | {"jobs": self.jobs, "plan": self.plan.as_json()}
        )

    def note(self, address: str, state: str, **details: Any) -> None:
        """Say how a task goes."""
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        told = {"state": state, "node": node, "time": time.time(), **details}
        write_json(self._file(f"task.{address}"), told)

    def noted(self, address: str) -> dict[str, Any]:
        """What its task said last; empty when it has not begun."""
        path = self._file(f"task.{address}")
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return {}

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
    """What is locked from planning in the workspace `root` until the submission is visible."""
    return _jobs_folder() / f"plan-{text_hash(str(root))[:16]}"


def read_submission(number: str = "") -> Submission:
    """A submission by its number, or the last. Raises UserError when there is none."""
    folders = {folder.name: folder for folder in _folders()}
    name = number or max(folders, key=int, default="")
    if name not in folders:
        got = f"no submission {name}".strip()
        raise UserError(
            _jobs_folder(), got, expected=f"one of {', '.join(folders) or 'none so far'}",
            fix="send one by `python -m stages.submit`",
        )  # fmt: skip
    return read_folder(folders[name])


def submissions() -> list[Submission]:
    """Every submission of this workspace, the first first."""
    return [
        read_folder(folder) for folder in sorted(_folders(), key=lambda folder: int(folder.name))
    ]


def read_folder(folder: Path) -> Submission:
    """The submission in a folder."""
    told = read_json(folder / "submission.json")
    return Submission(
        folder, Path(told["root"]), Path(told["logs"]), told["executor"],
        Plan.from_json(told["plan"]), told["jobs"], told["process"], told["host"],
    )  # fmt: skip


def _folders() -> list[Path]:
    # A folder without the file is being sent, or was refused.
    found = _jobs_folder().glob("*/submission.json")
    return [path.parent for path in found if path.parent.name.isdecimal()]


def _jobs_folder() -> Path:
    return work_root().resolve() / "jobs"
