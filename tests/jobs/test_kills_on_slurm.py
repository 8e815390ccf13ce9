"""121 tasks, 8 at a time, while jobs, the recorder and slurmctld are killed: nothing is lost.

`SPLATFIX_KILL_RUNS=20` makes as many runs, each with other kills; without it there is none, since
one takes minutes, and on a busy machine an hour.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loopback import Cluster
from project import Project, Submit

from stages.graph.waiting import waits
from stages.jobs.submission import read_submission, submissions

RUNS = int(os.environ.get("SPLATFIX_KILL_RUNS", "0"))
NAMES = [f"n{number:02}" for number in range(60)]
ROUNDS_WITH_KILLS, MOST_ROUNDS = 2, 8
KILLS_OF_A_ROUND = Counter({"job": 10, "recorder": 3, "slurmctld": 1})
ROUND_S, STUCK_S = 600, 20
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


class Killer:
    """Kills at random moments, and how often what was hit."""

    def __init__(self, cluster: Cluster, project: Project, draw: random.Random):
        self.cluster, self.project, self.draw = cluster, project, draw
        self.hit, self.of_round = Counter[str](), Counter[str]()

    def once(self) -> None:
        """Kill a job, the recorder of dvc.lock, or slurmctld, which is started again."""
        left = KILLS_OF_A_ROUND - self.of_round
        if not left:
            return
        kind = self.draw.choice(sorted(left))
        if kind == "slurmctld":
            self._restart_slurmctld()
        else:
            words = "stages.job" if kind == "job" else "record"
            found = [pid for pid, line in processes(self.project) if words in line]
            if not found:
                return
            os.kill(self.draw.choice(found), signal.SIGKILL)
        self.hit[kind] += 1
        self.of_round[kind] += 1

    def _restart_slurmctld(self) -> None:
        folder = self.cluster.conf.parent
        os.kill(int((folder / "slurmctld.pid").read_text()), signal.SIGKILL)
        time.sleep(self.draw.uniform(0, 1))
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
        env = {**os.environ, "PATH": path, "SLURM_CONF": str(self.cluster.conf)}
        subprocess.run(["slurmctld"], env=env, check=True, timeout=60)


def processes(project: Project) -> list[tuple[int, list[str]]]:
    """Processes of the project's jobs in Python, with their words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            is_here = (folder / "cwd").resolve() == project.folder
        except OSError:
            continue
        if is_here and {"stages.job", "stages.submit"} & set(words):
            found.append((int(folder.name), words))
    return found


def wait(cluster: Cluster, project: Project, killer: Killer | None, submit: Submit) -> None:
    """Until no job waits or runs; what SLURM itself has lost track of is cancelled in the end.

    A slurmctld that was killed knows nothing of its last seconds: a node that runs a job of those
    takes no more until an administrator resumes it, jobs that were let begin may wait again, and
    jobs that have ended may run for ever.
    """
    moving = time.monotonic()
    end = moving + ROUND_S
    while True:
        time.sleep(0.5 if killer is None else killer.draw.uniform(0.1, 2))
        if killer is not None:
            killer.once()
        cluster.run("scontrol", "update", "nodename=ALL", "state=resume", check=False)
        try:
            left = cluster.run("squeue", "--noheader", "--array", "--format=%T %r").splitlines()
        except subprocess.CalledProcessError:
            continue
        if not left:
            return
        now = time.monotonic()
        assert now < end + ROUND_S, left
        if processes(project):
            moving = now
        if now > end or now > moving + STUCK_S:
            for one in submissions():  # it may have forgotten this one and remember the last
                submit("cancel", "--number", one.number)
            killer = None


@pytest.fixture(scope="module")
def expected(
    template: Project, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Stages of dvc.lock after a run on this machine."""
    project = Project(tmp_path_factory.mktemp("expected") / "project")
    project.create(NAMES)
    project.submit("--local", "--jobs", "2")
    return project.lock()


@pytest.mark.skipif(not RUNS, reason="SPLATFIX_KILL_RUNS is not set: a run takes minutes")
@pytest.mark.parametrize("seed", range(max(1, RUNS)))
def test_dvc_lock_is_complete_and_right_whatever_is_killed(
    seed: int, expected: dict, sent: Project, submit: Submit, slurm: Cluster
) -> None:
    draw = random.Random(seed)
    group = {"item": ["make", "double"]} if draw.random() < 0.75 else {}
    at_once = 8 if group else 4  # of each of two arrays
    sent.change(names=NAMES, slurm={"throttle": at_once, "group": group})
    sent.work(names=NAMES, steps=1, pause_s=0.2)
    killer = Killer(slurm, sent, draw)
    done: set[str] = set()
    for turn in range(MOST_ROUNDS):
        code, output = submit()
        assert code == 0, output
        if "nothing is stale" in output:
            break
        submission = read_submission()
        addresses = {task.address for task in submission.plan.tasks}
        assert not addresses & done, "a result that was said to be done is lost"
        killer.of_round.clear()
        # Where slurmctld dies first it forgets all jobs, so that none is there to be killed.
        kills = turn < ROUNDS_WITH_KILLS or not killer.hit["job"]
        wait(slurm, sent, killer if kills else None, submit)
        done |= {one for one in addresses if submission.noted(one).get("state") == "done"}
    assert "nothing is stale" in output
    print(f"seed {seed}: {turn} rounds, killed {dict(killer.hit)}")
    assert killer.hit["job"], "no job was killed"
    submit("status")
    assert not waits(sent.folder)
    assert sent.lock() == expected
    assert sent.is_clean()
