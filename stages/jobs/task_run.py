"""One task of a submission in its own job: begin, run and record it, or stop it."""

import logging
import time
from collections.abc import Mapping, Sequence

from stages.jobs import task_process
from stages.jobs.submission import Submission

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
            pipeline.record()
            _LOGGER.info("%s: up to date, or in the cache", self.task.address)
            return 0, "up to date"
        _LOGGER.info("%s: %s", self.task.address, " ".join(words))
        code = self._execute(words, stop, environment)
        if not code:
            for path in pipeline.finish(self.task.address, record=True):
                _LOGGER.warning("%s: %s was edited meanwhile; stale again", self.task.address, path)
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
        child = task_process.start(words, root, address, **environment or {})
        stop.children.append(child)
        if stop.noticed:  # since the check above
            child.terminate()
        code = child.wait()
        return code if code >= 0 else 128 - code

    def _note(self, state: str, **details: int) -> None:
        self.submission.note(self.task.address, state, began=self.began, **details)
