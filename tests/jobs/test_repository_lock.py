"""DVC's lock: who holds it is told within seconds, and one whose holder was killed is released."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from project import Project, Submit

from stages.graph.repository import stage_statuses
from stages.graph.repository_lock import holder_of_repository
from stages.run.errors import UserError

pytestmark = pytest.mark.slow
# What holds the lock: ours, or DVC's own command, which notes nothing.
OURS = """
import sys, time
from pathlib import Path
from dvc.rwlock import make_lock
from stages.graph.pipeline import Pipeline
pipeline = Pipeline(Path.cwd())
with pipeline._locked():
    Path("held").touch()
    with make_lock(".dvc/tmp/rwlock.lock", tmp_dir=".dvc/tmp", hardlink_lock=%s):
        while not Path("release").exists():
            time.sleep(0.05)
"""
THEIRS = """
import time
from pathlib import Path
from dvc.repo import Repo
with Repo().lock:
    Path("held").touch()
    time.sleep(600)
"""
Hold = Callable[..., subprocess.Popen]


@pytest.fixture(params=[True, False], ids=["hardlink", "flock"])
def hardlink(request: pytest.FixtureRequest, project: Project) -> bool:
    """Whether the project uses core.hardlink_lock."""
    if request.param:
        project.run("dvc", "config", "--local", "core.hardlink_lock", "true")
        project.run("rm", "-rf", ".dvc/tmp/lock", ".dvc/tmp/rwlock.lock")
    return request.param


@pytest.fixture
def hold(project: Project) -> Iterator[Hold]:
    """Start a process that holds the lock, and wait until it does."""
    started: list[subprocess.Popen] = []

    def begin(code: str) -> subprocess.Popen:
        (project.folder / "hold.py").write_text(code)
        words = [sys.executable, "hold.py"]
        process = subprocess.Popen(words, cwd=project.folder, env=project.env)
        started.append(process)
        while not (project.folder / "held").exists():
            assert process.poll() is None
            time.sleep(0.02)
        (project.folder / "held").unlink()
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def reading(process: subprocess.Popen, pattern: str) -> str:
    """The first line on stderr that matches."""
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"{pattern} is not there")


def test_lock_of_a_killed_process_is_released(
    project: Project, submit: Submit, hold: Hold, hardlink: bool
) -> None:
    holder = hold(OURS % hardlink)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    code, output = submit("--local", "make@a")
    assert code == 0, output
    told = f"DVC's lock was held by process {holder.pid} on "
    assert (told in output) == hardlink, "flock ends with its process"
    assert "make@a" in project.lock()


def test_holder_that_runs_is_named_and_waited_for(
    project: Project, hold: Hold, hardlink: bool
) -> None:
    holder = hold(OURS % hardlink)
    words = [sys.executable, "-m", "stages.submit", "--dry-run"]
    waiting = subprocess.Popen(
        words, cwd=project.folder, env=project.env, stderr=subprocess.PIPE, text=True
    )
    told = reading(waiting, "waiting for DVC's lock")
    assert f"held by process {holder.pid} on {os.uname().nodename} since 20" in told
    assert f"which runs; wait for it, or end it: `kill {holder.pid}`" in told
    (project.folder / "release").touch()
    assert waiting.wait(timeout=60) == 0
    assert holder.wait(timeout=60) == 0, "its lock was its own until the end"


def test_commands_that_do_not_wait_name_the_holder_too(
    project: Project, hold: Hold, hardlink: bool
) -> None:
    assert holder_of_repository(Path(), hardlink=hardlink) is None
    holder = hold(OURS % hardlink)
    with pytest.raises(UserError, match=f"held by process {holder.pid} on .*, which runs"):
        stage_statuses()
    busy = holder_of_repository(Path(), hardlink=hardlink)
    assert busy is not None
    assert str(holder.pid) in busy.got


def test_command_repro_waits_for_the_holder(project: Project, hold: Hold, hardlink: bool) -> None:
    holder = hold(OURS % hardlink)
    look = "from stages.graph.repository import stage_statuses as look; print(len(look(wait=True)))"
    words = [sys.executable, "-c", f"import logging; logging.basicConfig(); {look}"]
    waiting = subprocess.Popen(
        words, cwd=project.folder, env=project.env, stderr=subprocess.PIPE, text=True
    )
    assert f"held by process {holder.pid}" in reading(waiting, "waiting for DVC's lock")
    (project.folder / "release").touch()
    assert waiting.wait(timeout=60) == 0


def test_merge_conflict_in_dvc_lock_is_told(project: Project, submit: Submit) -> None:
    assert submit("--local", "make@a")[0] == 0
    lock = project.folder / "dvc.lock"
    lock.write_text(lock.read_text().replace("stages:\n", "<<<<<<< HEAD\nstages:\n", 1))
    with pytest.raises(UserError, match=r"dvc\.lock") as raised:
        stage_statuses()
    assert "git checkout --theirs dvc.lock" in raised.value.fix


@pytest.mark.parametrize("hardlink", [True], indirect=True)  # the other kind ends with its process
def test_holder_on_another_host_is_named_with_the_way_out(
    project: Project, submit: Submit, hold: Hold, hardlink: bool
) -> None:
    hold(OURS % True).kill()
    note = project.folder / ".dvc/tmp/splatfix-lock.json"
    values = json.loads(note.read_text())
    values["holder"]["process"] |= {"host": "gpu7", "boot": "another"}
    note.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"held by process \d+ on gpu7 since") as raised:
        stage_statuses()
    (command,) = re.findall(r"once it has ended on gpu7: `(.*)`", raised.value.fix)
    subprocess.run(["bash", "-c", command], cwd=project.folder, check=True)
    assert submit("--local", "--dry-run")[0] == 0


def test_killed_dvc_command_is_named_by_its_user_and_time(
    project: Project, submit: Submit, hold: Hold, hardlink: bool
) -> None:
    holder = hold(THEIRS)
    with pytest.raises(UserError, match="held by a dvc command of ") as raised:
        stage_statuses()
    assert time.strftime("since %Y-%m-%d %H:") in raised.value.got
    holder.kill()
    (command,) = re.findall(r"on any host: `(.*)`", raised.value.fix)
    subprocess.run(["bash", "-c", command], cwd=project.folder, check=True)
    assert submit("--local", "--dry-run")[0] == 0


def test_file_of_the_other_kind_is_told(project: Project, submit: Submit) -> None:
    assert submit("--local", "make@a")[0] == 0
    project.run("dvc", "config", "--local", "core.hardlink_lock", "true")
    with pytest.raises(UserError, match=r"without core\.hardlink_lock") as raised:
        stage_statuses()
    (command,) = re.findall(r"on any host: `(.*)`", raised.value.fix)
    subprocess.run(["bash", "-c", command], cwd=project.folder, check=True)
    assert "nothing is stale" in submit("--local", "make@a")[1]


def test_dvc_on_another_host_does_not_harm_jobs(project: Project) -> None:
    """Another namespace of process numbers stands for a host: all holders look dead there."""
    elsewhere = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*elsewhere, "true"], capture_output=True).returncode:
        pytest.skip("no permission for namespaces")
    project.work(steps=40, pause_s=0.1)
    words = [sys.executable, "-m", "stages.submit", "--local", "double@a"]
    running = subprocess.Popen(words, cwd=project.folder, env=project.env)
    state = project.folder / ".work/double/a.txt"
    while not state.exists():
        assert running.poll() is None
        time.sleep(0.05)
    project.run(*elsewhere, "dvc", "--wait-for-lock", "status")
    assert int(state.read_text()) < 40, "the stage ran meanwhile"
    assert running.wait(timeout=60) == 0
    assert "double@a" in project.lock()


@pytest.mark.parametrize("left", ["", '{"read": {"a'])
def test_list_of_files_in_use_that_a_killed_process_half_wrote_is_removed(
    left: str, project: Project, submit: Submit
) -> None:
    place = project.folder / ".dvc/tmp/rwlock"
    place.write_text(left)
    assert project.run("dvc", "status", check=False).returncode, "DVC itself gives up"
    code, output = submit("--local", "make@a")
    assert code == 0, output
    assert "left half written" in output
    place.write_text(left)
    assert stage_statuses()
    project.run("dvc", "status")
