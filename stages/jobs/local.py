"""A plan on this machine: several tasks at once; a failure stops only the tasks that need it.

Only this process uses DVC; it records results while the next tasks run.
"""

import dataclasses
import logging
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from stages.graph.pipeline import Pipeline
from stages.jobs import task_process
from stages.jobs.config import SlurmConfig
from stages.jobs.plan import Task
from stages.jobs.recording import RECORD_EVERY_S
from stages.jobs.submission import Submission
from stages.jobs.task_states import RUN
from stages.run.errors import UserError
from stages.run.process.cores import share_of_cores
from stages.run.process.gpus import gpu_environment, visible_gpus
from stages.run.process.locks import alone

_LOGGER = logging.getLogger(__name__)
_POLL_S = 0.05
_SHOWN_LINES = 12


@dataclass(frozen=True)
class _Running:
    task: Task
    child: subprocess.Popen
    gpus: tuple[str, ...]
    began: float


class LocalRun:
    """One plan, at most `jobs` tasks at a time; those with the longest chain after them first."""

    def __init__(self, pipeline: Pipeline, submission: Submission, config: SlurmConfig, jobs: int):
        self.pipeline, self.submission, self.config, self.jobs = pipeline, submission, config, jobs
        self.plan = submission.plan
        self.heights = self.plan.heights()
        self.waiting = {task.address: task for task in self.plan.tasks}
        self.running: list[_Running] = []
        self.done: set[str] = set()
        self.failed: list[str] = []
        # A single task at a time uses all of them.
        self.gpus = visible_gpus() if jobs > 1 else []
        self.free_gpus = list(self.gpus)
        self.recorded = time.monotonic()

    def run(self) -> int:
        """Run to the end; 0, 1 if a task failed, task_process.STOPPED after a signal."""
        self.submission.logs.mkdir(parents=True, exist_ok=True)
        with task_process.Stop() as stop:
            try:
                while self.running or (self.waiting and not stop.noticed):
                    while not stop.noticed and (task := self._next()):
                        self._start(task, stop)
                    ended = [one for one in self.running if one.child.poll() is not None]
                    for one in ended:
                        self._end(one, stop)
                    if not ended:
                        self._pause()
            finally:
                self.pipeline.record()
        for address in self.waiting:
            self.submission.note(address, "cancelled")
        return task_process.STOPPED if stop.noticed else int(bool(self.failed))

    def _next(self) -> Task | None:
        """The task to start now, if one is ready and its GPUs are free."""
        if len(self.running) >= self.jobs:
            return None
        ready = [one for one in self.waiting.values() if self.done.issuperset(one.needs)]
        fitting = [one for one in ready if self._gpus_wanted(one) <= len(self.free_gpus)]
        return max(fitting, key=lambda one: self.heights[one.address], default=None)

    def _start(self, task: Task, stop: task_process.Stop) -> None:
        del self.waiting[task.address]
        began = time.time()
        try:
            if task.command:
                self.pipeline.record()  # a command that is no stage may read dvc.lock
            words, environment = list(task.command) or None, {}
            if words is None:
                words, environment = task_process.begin(
                    self.pipeline, self.submission, task.address
                )
        except UserError as error:
            self.submission.log(task.address, "err").write_text(f"{error}\n")
            self._fail(task, began)
            return
        if words is None:
            self._succeed(task, "up to date", began)
            return
        taken = tuple(self.free_gpus.pop(0) for _ in range(self._gpus_wanted(task)))
        environment |= share_of_cores(self.jobs) | (gpu_environment(taken) if self.gpus else {})
        with ExitStack() as files:
            out, err = (
                files.enter_context(self.submission.log(task.address, kind).open("wb"))
                for kind in ("out", "err")
            )
            root = self.submission.root
            child = task_process.start(words, root, task.address, out, err, **environment)
        self.running.append(_Running(task, child, taken, began))
        stop.children.append(child)
        self.submission.note(task.address, "running", began=began)

    def _end(self, one: _Running, stop: task_process.Stop) -> None:
        self.running.remove(one)
        stop.children.remove(one.child)
        self.free_gpus += one.gpus
        code = one.child.returncode
        if code and (stop.noticed or code == task_process.STOPPED):
            self.submission.note(one.task.address, "cancelled", began=one.began)
            stop.noticed = True
            return
        try:
            if not code and not one.task.command:
                for path in self.pipeline.finish(one.task.address):
                    _LOGGER.warning(
                        "%s: %s was edited meanwhile; stale again", one.task.address, path
                    )
        except UserError as error:
            with self.submission.log(one.task.address, "err").open("a") as log:
                log.write(f"{error}\n")
            code = 1
        if code:
            self._fail(one.task, one.began, code)
        else:
            self._succeed(one.task, "done", one.began)

    def _succeed(self, task: Task, state: str, began: float) -> None:
        self.done.add(task.address)
        self.submission.note(task.address, state, began=began)
        result = f"{time.time() - began:.0f} s" if state == "done" else state
        _LOGGER.info("[%s] %s: %s", self._count(), task.address, result)

    def _fail(self, task: Task, began: float, code: int = 1) -> None:
        self.failed.append(task.address)
        self.submission.note(task.address, "failed", began=began, code=code)
        _LOGGER.info("[%s] %s: FAILED with %s", self._count(), task.address, code)
        path = self.submission.log(task.address, "err")
        for line in path.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]:
            _LOGGER.info("    %s", line)
        _LOGGER.info("    whole log: %s", os.path.relpath(path))
        dropped = [one for one in self.plan.dependants(task.address) if one in self.waiting]
        for address in dropped:
            del self.waiting[address]
            self.submission.note(address, "cancelled")
        if dropped:
            _LOGGER.info("    not run, as they need it: %s", ", ".join(dropped))

    def _pause(self) -> None:
        if time.monotonic() - self.recorded > RECORD_EVERY_S:
            self.pipeline.record()
            self.recorded = time.monotonic()
        time.sleep(_POLL_S)

    def _gpus_wanted(self, task: Task) -> int:
        return min(self.config.resources(task.address).gpus, len(self.gpus))

    def _count(self) -> str:
        return f"{len(self.done) + len(self.failed)}/{len(self.plan.tasks)}"


def run_local(
    pipeline: Pipeline,
    submission: Submission,
    config: SlurmConfig,
    jobs: int,
    visible: Callable[[], object] = lambda: None,
) -> int:
    """Run a plan here; returns the exit code of `LocalRun.run`.

    Args:
        pipeline: Of the workspace that the stages run in.
        submission: The plan, with its folder.
        config: Resources of the stages; only their numbers of GPUs count here.
        jobs: Tasks at a time.
        visible: Called once other processes can see the run.
    """
    names = {
        task.address: f"local{submission.number}_{index}"
        for index, task in enumerate(submission.plan.tasks)
    }
    submission = dataclasses.replace(submission, jobs=names, process=os.getpid())
    with alone(submission.folder / RUN):
        submission.save()
        visible()
        return LocalRun(pipeline, submission, config, jobs).run()
