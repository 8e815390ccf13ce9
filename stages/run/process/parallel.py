"""Several commands at once, one process each; a failure or a signal stops all of them."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from stages.run.at_work import others_speak
from stages.run.process.processes import die_with_parent
from stages.run.process.stopping import PREEMPTED, Preemption
from stages.run.settings import readings

# After a failure the other commands may wait for the failed one for ever, as in all-reduce.
_GRACE_S = 60.0


def run_all(
    commands: Sequence[Sequence[str]],
    workers: int,
    environments: Sequence[Mapping[str, str]] = (),
) -> None:
    """Run every command, at most `workers` at a time; exit with the first failure's code.

    Each reads the params that this process has read; the `environments`, one per command, are
    added to ours. Signals to stop are passed on, and a child is killed when this process is: a
    killed stage must not leave trainings behind that write beside the next one.
    """
    environments = list(environments) or [{}] * len(commands)
    waiting = list(zip(commands, environments, strict=True))
    running: list[subprocess.Popen] = []

    def stop_all() -> None:
        for child in running:
            child.terminate()

    failed, failed_at = 0, 0.0
    with (
        others_speak(),
        readings.params_for_children() as handed,
        Preemption(stop_all) as preemption,
    ):
        while running or (waiting and not (preemption.noticed or failed)):
            while waiting and len(running) < workers and not (preemption.noticed or failed):
                command, own = waiting.pop(0)
                environment = {**os.environ, **handed, **own}
                running.append(
                    subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
                )
                if preemption.noticed:  # while it was started
                    running[-1].terminate()
            ended = next((child for child in running if child.poll() is not None), None)
            if ended is None:
                if failed and time.monotonic() - failed_at > _GRACE_S:
                    for child in running:
                        child.kill()
                _pause(running[0])
                continue
            running.remove(ended)
            if ended.returncode and not failed:
                failed, failed_at = ended.returncode, time.monotonic()
                stop_all()
        if preemption.noticed and (failed or waiting):
            sys.exit(PREEMPTED)
    if failed:
        sys.exit(failed if failed > 0 else 128 - failed)


def _pause(child: subprocess.Popen) -> None:
    try:
        child.wait(timeout=0.1)
    except subprocess.TimeoutExpired:
        return
