"""Tasks of an array of four that are stopped: exactly these come back, and resume.

The first, a middle and the last one, alone and all together, while their siblings run and after
they have ended; by a signal, by SLURM's own requeue and preemption, and by scancel, after which
they stay cancelled. Arrays run side by side, so that all wait only once for SLURM's restarts.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback import Cluster
from project import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

# Stands for Python: a training that runs until it is released, saves its state when it is stopped
# and resumes from it.
STAGE = """#!/bin/bash
task=$CALLS/$SLURM_ARRAY_TASK_ID
echo "$2" >> "$task.calls"
[[ $2 == stages.static_train ]] || exit 0
[[ ! -e $task.state ]] || echo "resumed at $(cat "$task.state")"
trap 'echo "step ${SLURM_RESTART_COUNT:-0}" > "$task.state"; exit 75' TERM
touch "$task.started"
until [[ -e $task.release || -n ${SLURM_RESTART_COUNT:-} ]]; do sleep 0.1; done
"""
TASKS = range(4)
FIRST, MIDDLE, LAST = 0, 1, 3
TRAIN, EVALUATE = "stages.static_train", "stages.static_evaluate"


@dataclass(frozen=True)
class Case:
    """How tasks of one array are stopped."""

    how: str  # signal, requeue, preempted, cancel
    tasks: tuple[int, ...]
    siblings: str = "run"  # meanwhile, or end before

    @property
    def name(self) -> str:
        stopped = "+".join(map(str, self.tasks))
        return f"{self.how}-{stopped}-siblings-{self.siblings}"

    @property
    def comes_back(self) -> bool:
        return self.how != "cancel"


# Two rounds of as many tasks as the nodes have cores; in the first one, h100 is for the array that
# is preempted there.
ROUNDS = (
    [
        *(Case("signal", (task,)) for task in (FIRST, MIDDLE, LAST)),
        *(Case("signal", (task,), "end") for task in (FIRST, MIDDLE, LAST)),
        Case("preempted", tuple(TASKS)),
    ],
    [
        Case("signal", tuple(TASKS)),
        *(Case("requeue", (task,)) for task in (FIRST, LAST)),
        Case("requeue", (LAST,), "end"),
        *(Case("cancel", (task,)) for task in (FIRST, LAST)),
        Case("cancel", (LAST,), "end"),
    ],
)


class Array:
    """A submitted array of one case."""

    def __init__(self, case: Case, folder: Path, slurm: Cluster, place: str):
        self.case, self.calls, self.slurm = case, folder / "calls" / case.name, slurm
        self.siblings = [task for task in TASKS if task not in case.tasks]
        self.calls.mkdir(parents=True)
        size = ("--gres=none", "--cpus-per-task=1", "--mem=512M", place)
        os.environ["CALLS"] = str(self.calls)
        sent = slurm.run("sbatch", "--parsable", *size, "slurm/static_training.slurm", "dog")
        self.job = sent.strip()

    def has(self, kind: str, tasks: list[int]) -> bool:
        return all((self.calls / f"{task}.{kind}").exists() for task in tasks)

    def release(self, tasks: list[int]) -> None:
        for task in tasks:
            (self.calls / f"{task}.release").touch()

    def states(self) -> dict[int, str]:
        """States of the tasks in the queue."""
        lines = (line.split() for line in self.slurm.queue())
        rows = ((name.partition("_"), state) for name, state in lines)
        return {int(task): state for (job, _, task), state in rows if job == self.job}

    def stop(self) -> None:
        names = [f"{self.job}_{task}" for task in self.case.tasks]
        if self.case.how == "signal":
            self.slurm.run("scancel", "--signal=USR1", "--batch", *names)
        elif self.case.how == "cancel":
            self.slurm.run("scancel", *names)
        elif self.case.how == "requeue":
            for name in names:
                self.slurm.run("scontrol", "requeue", name)
        else:
            urgent = ("--partition=high", "--nodelist=h100", "--exclusive", "--output=/dev/null")
            self.slurm.run("sbatch", *urgent, "--wrap=true")

    def is_stopped(self) -> bool:
        """Whether the stopped tasks wait to run again, or are gone."""
        states = self.states()
        wanted = "PENDING" if self.case.comes_back else None
        return all(states.get(task) == wanted for task in self.case.tasks)

    def called(self, task: int) -> list[str]:
        return (self.calls / f"{task}.calls").read_text().split()


@pytest.fixture(scope="module")
def arrays(
    slurm: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Array, dict[int, str], Path]]]:
    """Every array after its end, with the states of its tasks while some were stopped."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    stub = folder / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(STAGE)
    stub.chmod(0o755)
    ended = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SLURM_CONF", str(slurm.conf))
        patch.setenv("PATH", str(stub.parent), prepend=":")
        patch.setenv("CALLS", "")
        for cases in ROUNDS:
            is_taken = any(case.how == "preempted" for case in cases)
            others = "--exclude=h100" if is_taken else "--exclude="
            places = ["--nodelist=h100" if case.how == "preempted" else others for case in cases]
            sent = [
                Array(case, folder, slurm, place) for case, place in zip(cases, places, strict=True)
            ]
            slurm.until(lambda sent=sent: all(one.has("started", list(TASKS)) for one in sent))
            for one in sent:
                if one.case.siblings == "end":
                    one.release(one.siblings)
            alone = [one for one in sent if one.case.siblings == "end"]
            slurm.until(
                lambda alone=alone: all(set(one.states()) == set(one.case.tasks) for one in alone)
            )
            for one in sent:
                one.stop()
            slurm.until(lambda sent=sent: all(one.is_stopped() for one in sent))
            states = [one.states() for one in sent]
            for one in sent:
                one.release(list(TASKS))
            slurm.wait()
            for one, state in zip(sent, states, strict=True):
                ended[one.case.name] = (one, state, folder / "slurm_logs")
        yield ended


@pytest.mark.parametrize("case", [*ROUNDS[0], *ROUNDS[1]], ids=lambda case: case.name)
def test_exactly_the_stopped_tasks_come_back(
    arrays: dict[str, tuple[Array, dict[int, str], Path]], case: Case
) -> None:
    array, states, logs = arrays[case.name]
    others = {task: states.get(task) for task in array.siblings}
    assert set(others.values()) <= {"RUNNING" if case.siblings == "run" else None}, others
    for task in TASKS:
        shown = array.slurm.run("scontrol", "show", "job", "-o", f"{array.job}_{task}")
        log = (logs / f"{array.job}_{task}.out").read_text()
        # SLURM names all tasks by the number of the last one.
        assert shown.startswith(f"JobId={array.job} ") == (task == LAST)
        if task not in case.tasks:
            assert array.called(task) == [TRAIN, EVALUATE], "what was done does not run again"
            assert "Restarts=0" in shown
            assert "JobState=COMPLETED" in shown
        elif case.comes_back:
            assert array.called(task) == [TRAIN, TRAIN, EVALUATE]
            assert log.count("resumed at step 0") == 1
            assert "Restarts=1" in shown
            assert "JobState=COMPLETED" in shown
        else:
            assert array.called(task) == [TRAIN]
            assert "Restarts=0" in shown
            assert "JobState=CANCELLED" in shown
        asked = case.how == "signal" and task in case.tasks
        assert log.count("stopped and queued again") == asked or case.how == "preempted"
