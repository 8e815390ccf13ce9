"""Tasks of a submission in a job: begin, run and record each, or stop it."""

import logging
import time
from collections.abc import Mapping, Sequence

from stages.jobs import slurm, task_process
from stages.jobs.config import SlurmConfig
from stages.jobs.recording import RECORD_EVERY_S, record_all
from stages.jobs.submission import Submission
from stages.run.errors import UserError, raise_all

_LOGGER = logging.getLogger(__name__)


class TaskRun:
    """One run of a task; its job may be stopped and queued again."""

    def __init__(self, submission: Submission, address: str, wrap: Sequence[str] = ()):
        """`wrap` are words before the command, such as those that start a container."""
        self.submission, self.task = submission, submission.task(address)
        self.wrap = wrap
        self.began = time.time()

    def run(self) -> int:
        """Run to the end; 0, the command's exit code, or task_process.STOPPED after a signal."""
        with task_process.Stop() as stop:
            self._note("running")
            if self.task.command:
                record_all(self.submission.root)  # such as `save`, which reads dvc.lock
                code, state = self._execute(list(self.task.command), stop), "done"
            else:
                code, state = self._run_stage(stop)
        if code and (stop.noticed or code == task_process.STOPPED):
            self._note("stopped")
            return task_process.STOPPED
        self._note("failed" if code else state, code=code)
        return code

    def _run_stage(self, stop: task_process.Stop) -> tuple[int, str]:
        # Importing DVC takes a second; signals are handled by then.
        from stages.graph.pipeline import Pipeline

        pipeline = Pipeline(self.submission.root)
        words, environment = task_process.begin(pipeline, self.submission, self.task.address)
        if words is None:
            pipeline.record(every_s=RECORD_EVERY_S)
            _LOGGER.info("%s: up to date, or in the cache", self.task.address)
            return 0, "up to date"
        _LOGGER.info("%s: %s", self.task.address, " ".join(words))
        code = self._execute(words, stop, environment)
        if not code:
            for path in pipeline.finish(self.task.address):
                _LOGGER.warning("%s: %s was edited meanwhile; stale again", self.task.address, path)
            pipeline.record(every_s=RECORD_EVERY_S)
        return code, "done"

    def _execute(
        self,
        words: list[str],
        stop: task_process.Stop,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        if stop.noticed:
            return task_process.STOPPED
        root, address = self.submission.root, self.task.address
        words = [*self.wrap, *words]
        variables = {**slurm.cores_of_job(), **(environment or {})}
        child = task_process.start(words, root, address, **variables)
        stop.children.append(child)
        if stop.noticed:  # since the check above
            child.terminate()
        code = child.wait()
        return code if code >= 0 else 128 - code

    def _note(self, state: str, **details: int) -> None:
        self.submission.note(self.task.address, state, began=self.began, **details)


def run_tasks(submission: Submission, addresses: Sequence[str], config: SlurmConfig) -> int:
    """Run the tasks of a job one after another; 0, or the exit code of the first that failed.

    After a failure those that need it are cancelled and the others run; a signal stops all.
    Raises UserError like the first task that did.
    """
    code, errors = 0, []
    left = list(addresses)
    while left:
        address = left.pop(0)
        try:
            ended = TaskRun(submission, address, config.resources(address).wrap).run()
        except UserError as error:
            submission.note(address, "failed", code=2)
            errors.append(error)
            ended = 2
        if ended == task_process.STOPPED:
            return ended
        if ended:
            code = code or ended
            dropped = set(submission.plan.dependants(address)) & set(left)
            left = [one for one in left if one not in dropped]
            for one in dropped:
                submission.note(one, "cancelled")
    raise_all(errors)
    return code


def run_side_by_side(submission: Submission, chains: Sequence[Sequence[str]]) -> int:
    """Run chains of tasks at the same time, each in a process of its own and in its order.

    They share the job's cores and GPUs. Returns as `run_tasks`; a signal stops all.
    """
    cores = slurm.cores_of_job(len(chains))
    with task_process.Stop() as stop:
        for chain in chains:
            words = slurm.part_words(submission.folder, chain)
            child = task_process.start(words, submission.root, chain[0], **cores)
            stop.children.append(child)
        if stop.noticed:  # while they were started
            for child in stop.children:
                child.terminate()
        codes = [child.wait() for child in stop.children]
    if stop.noticed or task_process.STOPPED in codes:
        return task_process.STOPPED if any(codes) else 0
    return next((code if code > 0 else 128 - code for code in codes if code), 0)
