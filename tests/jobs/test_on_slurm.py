"""The graph as jobs of a real SLURM: order, failures, refusals and stops, and the record."""

import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import Cluster
from project import ROOT, Project, Submit

from stages.graph.pipeline import Pipeline
from stages.jobs import slurm as slurm_side
from stages.jobs.plan import JobPlan
from stages.jobs.recording import record_all
from stages.jobs.submission import Submission, read_submission
from stages.jobs.task_run import TaskRun
from stages.jobs.task_states import task_states

NAMES = [f"n{number}" for number in range(8)]
ITEMS = ("a", "bb")
ALL = ["double@a", "double@bb", "make@a", "make@bb", "total@"]
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


def job_of(address: str) -> str:
    return read_submission().jobs[address]


def test_jobs_leave_what_repro_leaves(sent: Project, submit: Submit, slurm: Cluster) -> None:
    code, output = submit("--throttle", "1")
    assert code == 0, output
    assert "submitted 5 tasks as submission 1" in output
    arrays = {job.partition("_")[0] for job in read_submission().jobs.values()}
    assert len(arrays) == 3, "one array a stage"
    assert "under way in submission 1" in submit("total")[1]
    slurm.wait()
    assert sent.ran() == ALL
    assert "total   1 done" in submit("status")[1]
    job = job_of("make@bb")
    log = (sent.folder / "slurm_logs" / f"{job}.out").read_text()
    assert "make@bb: python work.py make bb" in log
    lock = sorted((sent.folder / "dvc.lock").read_text().splitlines())
    assert "nothing is stale" in submit()[1]
    sent.run("rm", "-r", "dvc.lock", "data", "metrics", "total.json", ".dvc/cache")
    sent.run("dvc", "repro", "-q")
    assert sorted((sent.folder / "dvc.lock").read_text().splitlines()) == lock


def test_arrays_larger_than_the_cluster_takes(
    sent: Project, submit: Submit, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm_side.max_array_size() == 1001, "SLURM's default"
    monkeypatch.setattr(slurm_side, "max_array_size", lambda: 2)
    sent.change(names=NAMES[:5])
    sent.work(names=NAMES[:5])
    code, output = submit()
    assert code == 0, output
    first = output.splitlines()[0]
    assert len(first.partition("  ")[0].split(", ")) == 3
    assert "make x 5" in first
    slurm.wait()
    assert sent.is_clean()
    assert len(sent.ran()) == 11


def test_stages_of_a_group_share_a_job(sent: Project, submit: Submit, slurm: Cluster) -> None:
    show_cores = ["sh", "-c", 'echo "cores: $SPLATFIX_CORES"; exec "$@"', "sh"]
    stages = {"make": {"wrap": show_cores}, "item": {"cpus": 1}}
    sent.change(slurm={"group": {"item": ["make", "double"]}, "stages": stages})
    sent.work(fail=["double@a"])
    code, output = submit()
    assert code == 0, output
    assert "item x 2" in output
    assert job_of("make@a") == job_of("double@a") != job_of("make@bb")
    slurm.wait()
    assert sent.ran() == ["double@a", "double@bb", "make@a", "make@bb"]
    log = (sent.folder / "slurm_logs" / f"{job_of('make@a')}.out").read_text()
    assert "cores: 1" in log, "the cluster shows each job all cores of the node"
    output = submit("status")[1]
    assert "make    2 done" in output
    assert "double  1 failed, 1 done" in output
    assert "total   1 cancelled" in output
    sent.work(fail=["make@bb"])
    sent.change(plus=1)
    submit()
    slurm.wait()
    assert sent.ran() == ["double@a", "make@a", "make@bb"], "what needs a failed one is left out"
    assert "double  1 done, 1 cancelled" in submit("status")[1]
    sent.work(fail=[])
    submit()
    slurm.wait()
    assert sent.ran() == ["double@bb", "make@bb", "total@"]
    assert sent.is_clean()


def test_stopped_job_of_a_group_goes_on_with_the_task_that_it_was_at(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    sent.change(slurm={"group": {"item": ["make", "double"]}})
    sent.work(steps=60, pause_s=0.05)
    submit("double@a")
    slurm.until((sent.folder / ".work/double/a.txt").exists)
    states = {row.address: row.state for row in task_states(read_submission())}
    assert states == {"make@a": "done", "double@a": "running"}
    slurm.run("scancel", "--signal=USR1", "--batch", job_of("double@a"))
    slurm.wait()
    assert sent.ran() == ["double@a", "double@a", "make@a"]
    assert Pipeline(sent.folder).plan(["double@a"]) == {}
    log = (sent.folder / "slurm_logs" / f"{job_of('double@a')}.out").read_text()
    assert "double@a: stopped and queued again" in log
    assert "resumed at" in log


def test_packed_tasks_run_at_the_same_time_in_one_job(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    cores = ["sh", "-c", 'echo "cores: $SPLATFIX_CORES"; exec "$@"', "sh"]
    stages = {"make": {"wrap": cores}, "item": {"cpus": 2}}
    group = {"item": ["make", "double"]}
    sent.change(slurm={"group": group, "pack": {"item": 2}, "stages": stages})
    sent.work(steps=100, pause_s=0.05)
    assert "item x 1" in submit()[1]
    slurm.until(lambda: all((sent.folder / f".work/double/{one}.txt").exists() for one in ITEMS))
    assert job_of("make@a") == job_of("double@bb") != job_of("total")
    states = {row.address: row.state for row in task_states(read_submission())}
    assert states["double@a"] == states["double@bb"] == "running"
    slurm.run("scancel", "--signal=USR1", "--batch", job_of("make@a"))
    slurm.wait()
    ran = ["double@a", "double@a", "double@bb", "double@bb", "make@a", "make@bb", "total@"]
    assert sent.ran() == ran
    log = (sent.folder / "slurm_logs" / f"{job_of('make@a')}.out").read_text()
    assert log.count("resumed at") == 2
    assert log.count("cores: 1") == 2
    assert sent.is_clean()
    sent.work(fail=["make@bb"], steps=1)
    sent.change(plus=1)
    submit()
    slurm.wait()
    assert sent.ran() == ["double@a", "make@a", "make@bb"], "the other one goes on"
    assert "make    1 done, 1 failed" in submit("status")[1]
    sent.work(steps=10_000, pause_s=0.05)
    sent.change(plus=2)
    submit()
    cancelled = submit("cancel", "double@a")[1].partition("cancelled: ")[2]
    assert "double@bb" in cancelled, "they have one job"
    slurm.wait()


def test_job_whose_end_slurm_has_lost_is_cancelled(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    """As after a crash of slurmctld: it has a job as running all of whose tasks have ended."""
    sent.change(slurm={"group": {"item": ["make", "double"]}})
    sent.work(steps=10_000, pause_s=0.05)
    submit("double@a")
    slurm.until((sent.folder / ".work/double/a.txt").exists)
    read_submission().note("double@a", "done")
    output = submit("cancel", "double@a")[1]
    assert "no task waits or runs" in output, "its job may run other tasks"
    output = submit("cancel")[1]
    assert {job_of("double@a"), read_submission().recorder} <= set(re.findall(r"[\d_]+", output))
    slurm.wait()
    assert "no task waits or runs" in submit("cancel")[1]


def test_experiments_of_a_project_in_a_folder_of_its_repository(
    sent: Project, submit: Submit, slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a path with characters that a shell, git or SLURM would act on."""
    top = tmp_path / "it's (ü) %j" / "mono"
    top.parent.mkdir()
    sent.folder.rename(top)
    moved = Project(top / "part")
    moved.folder.mkdir()
    for path in top.iterdir():
        if path.name not in (".git", "part"):
            path.rename(moved.folder / path.name)
    monkeypatch.chdir(moved.folder)
    moved.run("git", "add", "-A", str(top))
    moved.run("git", "commit", "-qm", "Move")
    for name, plus in (("one", 1), ("two", 2)):
        code, output = submit("-n", name, "-S", f"plus={plus}")
        assert code == 0, output
    slurm.wait()
    tables = [submit("status", "--number", str(number))[1] for number in (1, 2)]
    assert all("save    1 done" in one for one in tables), "\n".join(tables)
    refs = moved.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    totals = [moved.run("git", "show", f"{ref}:part/total.json").stdout for ref in refs]
    assert [json.loads(total)["total"] for total in totals] == [10, 14]
    assert moved.run("git", "status", "--short").stdout == ""
    assert not (moved.folder / ".dvc/config.local").exists()
    assert list((moved.folder / "slurm_logs").glob("*_0.out"))


def test_failed_item_cancels_its_dependants_and_no_others(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    sent.work(fail=["make@bb"])
    submit()
    slurm.wait()
    assert sent.ran() == ["double@a", "make@a", "make@bb"]
    output = submit("status")[1]
    assert "make    1 done, 1 failed" in output
    assert "double  1 done, 1 cancelled" in output
    assert "total   1 cancelled" in output
    assert "make bb cannot be made" in submit("logs")[1]
    sent.work(fail=[])
    submit()
    slurm.wait()
    assert sent.ran() == ["double@bb", "make@bb", "total@"], "only what was missing"
    assert sent.is_clean()


def test_refusal_takes_the_whole_chain_back(sent: Project, submit: Submit, slurm: Cluster) -> None:
    sent.change(slurm={"stages": {"total": {"memory": "900G"}}})
    code, output = submit()
    assert code == 2
    assert "stage total" in output
    assert "nothing was submitted; 2 arrays accepted before were cancelled" in output
    slurm.wait(10)
    assert sent.ran() == []
    assert "no submission" in submit("status")[1]
    sent.change(slurm={"stages": {}})
    assert submit()[0] == 0, "a refused submission is none that is under way"
    assert submit("cancel")[0] == 0
    slurm.wait(30)


def test_stop_before_the_limit_queues_again_and_changes_no_result(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    sent.work(steps=60, pause_s=0.05)
    submit("double@a")
    state = sent.folder / ".work/double/a.txt"
    slurm.until(state.exists)
    # What SLURM sends `warn_s` before the limit, and to a job that is preempted.
    slurm.run("scancel", "--signal=USR1", "--batch", job_of("double@a"))
    slurm.until(lambda: f"{job_of('double@a')} PENDING" in slurm.queue())
    stopped_at = int(state.read_text())
    assert stopped_at < 60
    assert "double@a" not in sent.lock()
    slurm.wait()
    log = submit("logs", "double@a")[1]
    assert "stopped and queued again" in log
    assert f"resumed at {stopped_at}" in log
    assert json.loads((sent.folder / "metrics/a.json").read_text()) == {"steps": 60}
    assert "double  1 done" in submit("status")[1]


@pytest.mark.parametrize("sibling_runs", [True, False])
def test_stopped_last_task_of_an_array_alone_comes_back(
    sent: Project, submit: Submit, slurm: Cluster, sibling_runs: bool
) -> None:
    """Its job number is the array's own, by which SLURM names all tasks."""
    submit("make")
    slurm.wait()
    sent.ran()
    sent.work(steps=400, pause_s=0.05)
    submit("double")
    state = sent.folder / ".work/double/bb.txt"
    slurm.until(state.exists)
    first, last = job_of("double@a"), job_of("double@bb")
    if sibling_runs:
        slurm.until(lambda: f"{first} RUNNING" in slurm.queue())
    else:
        slurm.run("scancel", first)
        slurm.until(lambda: not [line for line in slurm.queue() if line.startswith(first)])
    slurm.run("scancel", "--signal=USR1", "--batch", last)
    slurm.until(lambda: f"{last} PENDING" in slurm.queue())
    assert (f"{first} RUNNING" in slurm.queue()) == sibling_runs
    stopped_at = int(state.read_text())
    sent.work(steps=stopped_at + 1)
    slurm.wait()
    log = (sent.folder / "slurm_logs" / f"{last}.out").read_text()
    assert "stopped and queued again" in log
    assert f"resumed at {stopped_at}" in log
    assert sent.ran().count("double@bb") == 2
    tables = slurm.run("scontrol", "show", "job", "-o", first)
    assert "Restarts=0" in tables


def test_preempted_job_comes_back_and_a_cancelled_one_does_not(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    sent.work(steps=4000, pause_s=0.05)
    sent.change(slurm={"stages": {"double": {"extra": ["--nodelist=gpu1", "--exclusive"]}}})
    submit("double@a")
    state = sent.folder / ".work/double/a.txt"
    slurm.until(state.exists)
    urgent = ["sbatch", "--partition=high", "--nodelist=gpu1", "--exclusive", "--wrap=true"]
    slurm.run(*urgent, "--output=/dev/null")
    slurm.until(lambda: f"{job_of('double@a')} PENDING" in slurm.queue())
    slurm.until(lambda: f"{job_of('double@a')} RUNNING" in slurm.queue())
    log = sent.folder / "slurm_logs" / f"{job_of('double@a')}.out"
    slurm.until(lambda: "resumed at" in log.read_text())
    submit("cancel", "double")
    slurm.wait(30)
    assert int(state.read_text()) < 4000
    assert "double@a" not in sent.lock()
    assert "double  1 cancelled" in submit("status")[1]


def test_what_slurm_queues_again_by_itself_is_under_way(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    """A failed node, a preemption without grace time, a requeue, and one into the held state."""
    names = ["node", "preempted", "requeued", "held"]
    nodes = dict(zip(names, ("gpu1", "gpu2", "h100", "bad1"), strict=True))
    sent.change(
        names=names,
        slurm={
            "stages": {
                **{f"double@{name}": {"extra": [f"--nodelist={nodes[name]}"]} for name in names},
                "double@preempted": {
                    "extra": ["--nodelist=gpu2", "--exclusive"],
                    "partition": "abrupt",
                },
            }
        },
    )
    sent.work(names=names, steps=4000, pause_s=0.05)
    code, output = submit("double")
    assert code == 0, output
    jobs = {name: job_of(f"double@{name}") for name in names}
    states = {name: sent.folder / f".work/double/{name}.txt" for name in names}
    slurm.until(lambda: all(path.exists() for path in states.values()))
    slurm.run("scontrol", "update", "nodename=gpu1", "state=down", "reason=test")
    urgent = ["sbatch", "--partition=high", "--nodelist=gpu2", "--exclusive", "--wrap=sleep 4"]
    slurm.run(*urgent, "--output=/dev/null")
    slurm.run("scontrol", "requeue", jobs["requeued"])
    slurm.run("scontrol", "requeuehold", jobs["held"])

    def noted(name: str) -> str:
        return read_submission().noted(f"double@{name}").get("state", "")

    slurm.until(lambda: all(noted(name) not in ("", "running") for name in names))
    slurm.until(lambda: all(f"{jobs[name]} PENDING" in slurm.queue() for name in names))
    assert {noted(name) for name in names} == {"stopped"}, "no task says that it was cancelled"
    told = submit("status")[1]
    assert "double  1 held, 3 waiting" in told
    assert (
        f"double@held  held  job requeued in held state; `scontrol release {jobs['held']}" in told
    )
    for name in names:
        code, output = submit(f"double@{name}")
        assert code == 2
        assert "under way in submission 1" in output

    sent.work(steps=1)
    slurm.run("scontrol", "release", jobs["held"])
    # Refused if the node came back by itself.
    slurm.run("scontrol", "update", "nodename=gpu1", "state=resume", check=False)
    slurm.wait()
    assert "double  4 done" in submit("status")[1]
    ran = sent.ran()
    assert [ran.count(f"double@{name}") for name in names] == [2] * 4
    logs = [(sent.folder / "slurm_logs" / f"{jobs[name]}.out").read_text() for name in names]
    assert all("resumed at" in log for log in logs)
    assert sent.lock().keys() >= {f"double@{name}" for name in names}


def test_ended_task_that_a_user_queues_again_is_under_way(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    sent.work(fail=["make@bb"])
    submit("make")
    slurm.wait()
    assert "make  1 done, 1 failed" in submit("status")[1]
    sent.work(fail=[])
    slurm.run("scontrol", "requeuehold", job_of("make@bb"))
    assert "1 done, 1 held" in submit("status")[1]
    code, output = submit("make@bb")
    assert code == 2, output
    assert "under way in submission 1" in output
    slurm.run("scontrol", "release", job_of("make@bb"))
    slurm.wait()
    assert "make  2 done" in submit("status")[1]
    assert sent.ran() == ["make@a", "make@bb", "make@bb"]


def test_setup_runs_before_the_work_and_a_failing_line_ends_the_job(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    other = sent.folder / "other/bin/python"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\nexit 9\n")
    other.chmod(0o755)
    setup = [
        "export SAID='a b'; unset NOT_SET",
        "export VIRTUAL_ENV=$PWD/other PATH=$PWD/other/bin:$PATH",
        "echo setup: $SAID $NOT_SET \\",
        "if true\nthen :; fi",
    ]
    wrap = ["sh", "-c", 'echo "in a container: $SAID"; exec "$@"', "container"]
    sent.change(
        slurm={
            "stages": {
                "make": {"setup": setup, "wrap": wrap},
                "double@bb": {"setup": ["true", "echo gone >&2; (exit 3)", "touch reached"]},
            }
        }
    )
    code, output = submit("double")
    assert code == 0, output
    slurm.wait()
    told = submit("status")[1]
    assert "make    2 done" in told
    assert "double  1 done, 1 failed" in told
    assert "slurm, setup, line 2: 'echo gone >&2; (exit 3)' ended with 3" in told
    log = (sent.folder / "slurm_logs" / f"{job_of('make@a')}.out").read_text()
    assert "setup: a b\n" in log
    assert "in a container: a b\nmake a on" in log
    assert not (sent.folder / "reached").exists()
    assert sent.ran() == ["double@a", "make@a", "make@bb"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("echo 'x", 'slurm, setup, line 1, stage total: "echo \'x": line 1: unexpected EOF'),
        ("a ${B}", "${...}, which DVC replaces in params: write $NAME"),
    ],
)
def test_setup_that_cannot_work_is_refused_before_anything_is_sent(
    sent: Project, submit: Submit, slurm: Cluster, line: str, told: str
) -> None:
    sent.change(slurm={"stages": {"total": {"setup": [line]}}})
    code, output = submit()
    assert code == 2
    assert told in output
    slurm.wait(10)
    assert sent.ran() == []


def test_script_gets_the_setup_of_the_default(
    sent: Project, submit: Submit, slurm: Cluster
) -> None:
    path = sent.folder / "params.yaml"
    path.write_text(path.read_text().replace("setup: []", "setup: ['export SAID=\"a b\"']"))
    job_sh = shlex.quote(str(ROOT / "slurm/job.sh"))
    lines = ["#!/bin/bash", "#SBATCH --output=slurm_logs/said.out", "here=$PWD", f". {job_sh}"]
    (sent.folder / "own.slurm").write_text("\n".join([*lines, 'echo "said: $SAID"', ""]))
    code, output = submit("script", "own.slurm")
    assert code == 0, output
    slurm.wait()
    assert (sent.folder / "slurm_logs/said.out").read_text() == "said: a b\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_submit_that_is_stopped_while_it_sends_leaves_no_job(
    sent: Project, slurm: Cluster, number: signal.Signals
) -> None:
    """The signal comes while sbatch has sent the second array and its answer is on the way."""
    real, called = shutil.which("sbatch"), sent.folder / "called"
    slow = sent.folder / "slow/sbatch"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n{real} "$@" || exit\necho 1 >>{called}\nsleep 1\n')
    slow.chmod(0o755)
    sent.env["PATH"] = f"{slow.parent}:{sent.env['PATH']}"
    words = [sys.executable, "-m", "stages.submit"]
    sending = subprocess.Popen(
        words, cwd=sent.folder, env=sent.env, stderr=subprocess.PIPE, text=True, process_group=0
    )
    slurm.until(lambda: called.exists() and len(called.read_text().split()) == 2)
    os.killpg(sending.pid, number)  # as a terminal does
    told = sending.communicate(timeout=60)[1]
    assert sending.returncode == 75, told
    assert len(called.read_text().split()) == 2, "no third array"
    slurm.wait(10)
    assert sent.ran() == []


def _attempt(submission: Submission, address: str, barrier) -> None:
    """One array task's work, begun together with the others'."""
    barrier.wait(timeout=60)
    raise SystemExit(TaskRun(submission, address).run())


def test_eight_tasks_that_record_together_lose_nothing(project: Project, submit: Submit) -> None:
    """Five times over; processes of this one stand for jobs, as each would import DVC anew."""
    project.change(names=NAMES)
    project.work(names=NAMES)
    assert submit("--local", "make")[0] == 0
    fork = multiprocessing.get_context("fork")
    for turn in range(5):
        work = project.folder / "work.py"
        work.write_text(f"{work.read_text()}# {turn}\n")
        pipeline = Pipeline(project.folder)
        plan = JobPlan.of(pipeline.plan(["double"]))
        for task in plan.tasks:
            if task.stage == "make":
                pipeline.begin(task.address)
                subprocess.run(["python", "work.py", "make", task.address[5:]], check=True)
                pipeline.finish(task.address)
        pipeline.record()
        folder = project.folder / f".work/jobs/{turn + 10}"
        submission = Submission(folder, project.folder, Path("slurm_logs"), "slurm", plan, {})
        barrier = fork.Barrier(len(NAMES))
        children = [
            fork.Process(target=_attempt, args=(submission, f"double@{name}", barrier))
            for name in NAMES
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(timeout=120)
        assert [child.exitcode for child in children] == [0] * len(NAMES)
        record_all(project.folder)
        assert {f"double@{name}" for name in NAMES} <= set(project.lock())
        assert not Pipeline(project.folder).plan(["double"])
