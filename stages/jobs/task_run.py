"""One task of a submission in a job of its own: begin, run, record; or stop and queue again."""

import time
from collections.abc import Mapping

from stages.jobs import task_process as process
from stages.jobs.submission import Submission


class Attempt:
    """One try of a task; the job that makes it may be stopped and come back."""

    def __init__(self, submission: Submission, address: str):
        self.submission, self.task = submission, submission.task(address)
        self.began = time.time()

    def run(self) -> int:
        """Run to the end; 0, the command's exit code, or process.STOPPED after a signal."""
        with process.Stop() as stop:
            self._note("running")
            if self.task.command:
                code, state = self._execute(list(self.task.command), stop), "done"
            else:
                code, state = self._run_stage(stop)
        if code and (stop.noticed or code == process.STOPPED):
            self._note("stopped")
            return process.STOPPED
        self._note("failed" if code else state, code=code)
        return code

    def _run_stage(self, stop: process.Stop) -> tuple[int, str]:
        # DVC takes a second to import; the signals are heard by then.
        from stages.jobs.pipeline import Pipeline

        pipeline = Pipeline(self.submission.root)
        words, environment = process.begin(pipeline, self.submission, self.task.address)
        if words is None:
            pipeline.record()
            print(f"{self.task.address}: up to date, or in the cache")
            return 0, "up to date"
        print(f"{self.task.address}: {' '.join(words)}", flush=True)
        code = self._execute(words, stop, environment)
        if not code:
            for path in pipeline.finish(self.task.address, record=True):
                print(f"{self.task.address}: {path} was edited meanwhile; stale again")
        return code, "done"

    def _execute(
        self, words: list[str], stop: process.Stop, environment: Mapping[str, str] | None = None
    ) -> int:
        if stop.noticed:
            return process.STOPPED
        root, address = self.submission.root, self.task.address
        child = process.start(words, root, address, **environment or {})
        stop.children.append(child)
        if stop.noticed:  # between the look above and here
            child.terminate()
        code = child.wait()
        return code if code >= 0 else 128 - code

    def _note(self, state: str, **details: int) -> None:
        self.submission.note(self.task.address, state, began=self.began, **details)
