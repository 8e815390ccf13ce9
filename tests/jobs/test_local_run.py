"""`submit --local` on a small project: what runs, what is recorded, what a failure stops."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from project import Project, Submit
from ruamel.yaml import YAML

from stages.graph.pipeline import Pipeline
from stages.jobs import submit as sending
from stages.jobs import task_process


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happens() and time.monotonic() < end:
        time.sleep(0.05)


ALL = ["double@a", "double@bb", "make@a", "make@bb", "total@"]
pytestmark = pytest.mark.slow


def test_run_records_what_repro_records(project: Project, submit: Submit) -> None:
    code, output = submit("--local")
    assert code == 0, output
    assert project.ran() == ALL
    jobs_lock = (project.folder / "dvc.lock").read_text()
    assert "up to date" in project.run("dvc", "status").stdout
    project.run("rm", "-r", "dvc.lock", "data", "metrics", "total.json", ".dvc/cache")
    project.run("dvc", "repro", "-q")
    assert project.ran() == ALL
    assert sorted(jobs_lock.splitlines()) == sorted(
        (project.folder / "dvc.lock").read_text().splitlines()
    )


def test_failure_stops_what_needs_it_and_a_rerun_what_is_missing(
    project: Project, submit: Submit
) -> None:
    project.work(fail=["double@bb"])
    code, output = submit("--local")
    assert code == 1
    assert project.ran() == ["double@a", "double@bb", "make@a", "make@bb"]
    assert "double@bb: FAILED with 1\n    double bb cannot be made" in output
    assert "not run, as they need it: total" in output
    assert set(project.lock()) == {"make@a", "make@bb", "double@a"}
    project.work(fail=[])
    assert submit("--local")[0] == 0
    assert project.ran() == ["double@bb", "total@"]
    assert project.is_clean()


def test_stage_that_does_not_write_what_it_promised_fails(project: Project, submit: Submit) -> None:
    work = project.folder / "work.py"
    work.write_text(work.read_text().replace('if kind == "make":', 'if kind == "mk":'))
    code, output = submit("--local")
    assert code == 1
    assert "make@a: FAILED" in output
    assert "data/a/a.txt" in output


def test_result_in_the_run_cache_is_not_made_again(project: Project, submit: Submit) -> None:
    submit("--local")
    before = project.lock()
    project.ran()
    project.run("rm", "-r", "dvc.lock", "data", "metrics")
    code, output = submit("--local")
    assert (code, project.ran(), project.lock()) == (0, [], before)
    assert output.count("up to date") == len(ALL)


def test_edit_while_a_stage_runs_is_not_recorded_as_its_input(project: Project) -> None:
    pipeline = Pipeline(project.folder)
    assert pipeline.begin("make@a") == ["python", "work.py", "make", "a"]
    project.run("python", "work.py", "make", "a")
    work = project.folder / "work.py"
    work.write_text(work.read_text() + "# edited\n")
    assert pipeline.finish("make@a") == ["work.py"]
    pipeline.record()
    assert Pipeline(project.folder).plan(["make@a"]), (
        "what it was made from is no more, so it is stale"
    )


def test_edit_just_before_a_stage_reads_its_params_reaches_neither_it_nor_its_record(
    project: Project, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = task_process.start

    def edited_first(*words: object, **environment: str) -> subprocess.Popen:
        project.change(plus=10)
        return start(*words, **environment)

    monkeypatch.setattr(task_process, "start", edited_first)
    code, output = submit("--local", "make@a")
    assert code == 0, output
    assert "params.yaml was edited meanwhile; stale again" in output
    assert (project.folder / "data/a/a.txt").read_text() == "1"
    assert project.lock()["make@a"]["params"]["params.yaml"]["plus"] == 0


def test_run_that_was_killed_is_over_whoever_has_its_number_now(
    project: Project, submit: Submit
) -> None:
    project.work(steps=2000, pause_s=0.05)
    words = [sys.executable, "-m", "stages.submit", "--local", "double@a"]
    running = subprocess.Popen(words, cwd=project.folder, env=project.env)
    until((project.folder / ".work/double/a.txt").exists)
    running.kill()
    running.wait()
    record = project.folder / ".work/jobs/1/submission.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"process": os.getpid()}))
    assert "double@a  lost" in submit("status")[1]
    assert "no task waits or runs" in submit("cancel")[1], "this process would end"
    project.work(steps=1)
    assert submit("--local", "double@a")[0] == 0


def test_run_is_cancelled_where_it_is_and_nowhere_else(project: Project, submit: Submit) -> None:
    project.work(steps=2000, pause_s=0.05)
    words = [sys.executable, "-m", "stages.submit", "--local", "double@a"]
    running = subprocess.Popen(words, cwd=project.folder, env=project.env)
    until((project.folder / ".work/double/a.txt").exists)
    held = project.folder / ".work/jobs/1/.run.lock.part"
    record = json.loads(held.read_text())
    held.write_text(json.dumps(record | {"process": record["process"] | {"space": "pid:[1]"}}))
    code, output = submit("cancel")
    assert code == 2
    assert "cancel: a local run elsewhere" in output
    held.write_text(json.dumps(record))
    assert submit("cancel")[0] == 0
    assert running.wait(timeout=60) == 75


def test_targets_bring_what_they_need_and_typos_are_reported(
    project: Project, submit: Submit
) -> None:
    code, output = submit("--local", "--dry-run", "double@bb")
    assert code == 0
    assert [line.split("  ")[0] for line in output.splitlines()] == ["make x 1", "double x 1"]
    code, output = submit("--local", "doubel")
    assert code == 2
    assert "did you mean double?" in output
    assert project.ran() == []


def test_command_for_a_shell_is_refused(project: Project, submit: Submit) -> None:
    path = project.folder / "dvc.yaml"
    path.write_text(path.read_text().replace("work.py total", "work.py total && touch x"))
    code, output = submit("--local")
    assert code == 2
    assert "needs no shell" in output
    assert project.ran() == []


def test_override_for_no_stage_is_reported_with_its_line(project: Project, submit: Submit) -> None:
    project.change(slurm={"stages": {"mak@a": {"gpus": 1}}})
    code, output = submit("--local")
    assert code == 2
    assert "slurm.stages.mak@a: no such stage" in output
    assert "did you mean make?" in output


def test_resources_that_jobs_of_a_group_do_not_have_are_refused(
    project: Project, submit: Submit
) -> None:
    group = {"item": ["make", "double"]}
    project.change(slurm={"group": group, "stages": {"make@a": {"gpus": 0, "memory": "1G"}}})
    code, output = submit("--dry-run")
    assert code == 2
    assert "slurm.stages.make@a: memory of a stage whose tasks run in jobs of slurm.group.item" in (
        output
    )
    assert "set slurm.stages.item, or take make out of the group" in output
    project.change(slurm={"stages": {"make": {"gpus": 0, "wrap": ["env"]}}})
    assert submit("--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mak", "slurm.pack.mak: no such stage or group\nexpected a group, or a stage in none\n"),
        ("double", "slurm.pack.double: its tasks run in jobs of slurm.group.item"),
    ],
)
def test_packs_of_what_makes_no_jobs_are_refused(
    project: Project, submit: Submit, name: str, message: str
) -> None:
    project.change(slurm={"group": {"item": ["double"]}, "pack": {"make": 2, "item": 2}})
    assert submit("--dry-run")[0] == 0
    project.change(slurm={"pack": {name: 2}})
    code, output = submit("--dry-run")
    assert code == 2
    assert message in output


def test_resources_of_a_stage_that_has_no_item_now_are_no_error(
    project: Project, submit: Submit
) -> None:
    project.change(names=[], slurm={"stages": {"make": {"gpus": 1}}})
    code, output = submit("--dry-run")
    assert code == 0, output
    assert "total" in output
    assert "make" not in output


def test_stop_lets_stages_save_their_state_and_the_next_run_goes_on(
    project: Project, submit: Submit
) -> None:
    project.work(steps=2000, pause_s=0.05)
    words = [sys.executable, "-m", "stages.submit", "--local", "double@a"]
    running = subprocess.Popen(words, cwd=project.folder, env=project.env)
    state = project.folder / ".work/double/a.txt"
    until(state.exists)
    assert "double@a  running" in submit("status")[1]
    assert "under way in submission 1" in submit("--local", "double")[1]
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 75
    steps = int(state.read_text())
    assert 0 < steps < 2000
    assert "double  1 cancelled" in submit("status")[1]
    project.work(steps=steps + 1)
    assert submit("--local", "double@a")[0] == 0
    assert f"resumed at {steps}" in submit("logs", "double@a")[1]
    assert "double@a" in project.lock()


def test_status_is_of_local_submissions_with_or_without_the_flag(
    project: Project, submit: Submit
) -> None:
    code, output = submit("--local", "status")
    assert code == 2
    assert output.endswith("no submission yet\nfix: send one by `python -m stages.submit`\n")
    submit("--local")
    for words in (("status",), ("--local", "status"), ("status", "--local")):
        code, output = submit(*words)
        assert code == 0, output
        assert "submission 1, local" in output
    code, output = submit("status", "--number", "7")
    assert code == 2
    assert "no submission 7\nexpected one of 1\nfix: name one of these\n" in output


def test_experiment_leaves_the_workspace_and_can_be_compared(
    project: Project, submit: Submit
) -> None:
    submit("--local")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "First")
    project.ran()
    project.change(slurm={"throttle": 7})
    before = project.run("git", "status", "--short").stdout
    code, output = submit("--local", "-n", "more", "-S", "plus=10")
    assert code == 0, output
    assert project.run("git", "status", "--short").stdout == before
    assert project.ran() == []
    diff = json.loads(project.run("dvc", "metrics", "diff", "--json", "HEAD", "more").stdout)
    assert diff["total.json"]["total"]["diff"] == 40, "2 names, each 10 more, doubled"
    worktree = project.folder / ".work/experiments/more"
    assert "throttle: 7" in (worktree / "params.yaml").read_text()
    assert "has begun" in submit("--local", "-n", "more", "-S", "plus=11")[1]
    assert "nothing is stale" in submit("--local", "-n", "more")[1]


def test_experiment_of_some_stages_is_saved_without_the_others_outs(
    project: Project, submit: Submit
) -> None:
    submit("--local")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "First")
    code, output = submit("--local", "-n", "one", "-S", "plus=10", "double@a")
    assert code == 0, output
    assert not (project.folder / ".work/experiments/one/data/b/bb.txt").exists()
    refs = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    (saved,) = [ref for ref in refs if ref.endswith("/one")]
    locks = [
        YAML(typ="safe").load(project.run("git", "show", f"{rev}:dvc.lock").stdout)["stages"]
        for rev in ("HEAD", saved)
    ]
    assert {name for name in locks[0] if locks[0][name] != locks[1][name]} == {"make@a", "double@a"}


def test_dry_run_of_an_experiment_leaves_nothing(project: Project, submit: Submit) -> None:
    code, output = submit("--dry-run", "-n", "more", "-S", "plus=10")
    assert code == 0
    assert "save x 1" in output
    assert not (project.folder / ".work/experiments/more").exists()
    assert submit("--dry-run", "-n", "more", "-S", "plsu=10")[0] == 2, "no such param"
    code, output = submit("--dry-run", "-n", "more", "-S", "slurm.throttle=x")
    assert code == 2
    assert output == (
        "command line  slurm.throttle: got 'x'\nexpected a whole number\n"
        "fix: set another value there\n"
    )
    assert not (project.folder / ".work/experiments/more").exists()


def test_tasks_share_no_gpu(
    project: Project, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(sending, "KERNELS_COMMAND", ["python", "work.py", "kernels"])
    gpus = {"kernels": 0, "make": 1, "double": 4}
    project.change(slurm={"stages": {name: {"gpus": count} for name, count in gpus.items()}})
    assert submit("--local", "--jobs", "4")[0] == 0
    assert project.ran() == sorted([*ALL, "kernels@"])
    logs = project.folder / "slurm_logs"
    lines = [path.read_text().strip() for path in sorted(logs.glob("*.out"))]
    makes = {line.rpartition(" ")[2] for line in lines if line.startswith("make")}
    assert makes == {"3", "5"}
    assert {line.rpartition(" ")[2] for line in lines if line.startswith("double")} == {"3,5"}


def test_inputs_that_no_cache_keeps_are_made_where_they_are_read(project: Project) -> None:
    """Raw data, which DVC may not touch: a fresh clone lays it from what the cache has."""
    graph = project.folder / "dvc.yaml"
    kept = "outs: [{'data/a/${item.name}.txt': {cache: false, persist: true}}]"
    graph.write_text(graph.read_text().replace("outs: ['data/a/${item.name}.txt']", kept))
    project.run("dvc", "repro", "-q")
    project.run("rm", "-r", "data", "ran.log")
    pipeline = Pipeline(project.folder)
    pipeline.fetch_inputs(["double@a"])
    assert (project.folder / "data/a/a.txt").read_text() == "1"
    assert project.ran() == ["make@a"]


FOREIGN = """
import sys
OTHERS = "scenes", "splat", "samples", "difix", "quality", "pages", "workspace", "check"

class Refuse:
    def find_spec(self, name, *_):
        top, part = [*name.split("."), ""][:2]
        assert top != "torch" and not (top == "stages" and part in OTHERS), name

sys.meta_path.insert(0, Refuse())
sys.argv = ["stages.submit", *sys.argv[1:]]
from stages.commands.submit import main
from stages.run.entry import launch
launch(main)
"""


@pytest.mark.parametrize(
    "where",
    ["--local", pytest.param("", marks=[pytest.mark.slurm, pytest.mark.xdist_group("slurm")])],
)
def test_any_repository_of_dvc_can_be_submitted_without_a_module_of_this_study(
    where: str, request: pytest.FixtureRequest
) -> None:
    """Three stages of another subject, with a section `slurm` in their params.yaml."""
    project = request.getfixturevalue("project" if where else "sent")
    for words in ([*filter(None, [where])], ["status"], ["logs", "total"], ["record"]):
        done = project.run(sys.executable, "-c", FOREIGN, *words)
        if not where and words == []:
            request.getfixturevalue("slurm").wait()
    assert "total  on no GPU" in project.run(sys.executable, "-c", FOREIGN, "logs", "total").stdout
    assert done.returncode == 0
    assert project.is_clean()
    assert len(project.lock()) == 5
