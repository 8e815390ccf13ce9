"""Two runs never write one path, and the second names the first."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.run.checkpoint import Checkpoint, forget
from stages.run.errors import UserError
from stages.run.files import whole_folder
from stages.run.process import locks
from stages.run.process.locks import alone, holder_of
from stages.run.process.processes import Process

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from stages.run.process.locks import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Start another process that holds a place until its input ends."""
    started = []

    def start(target: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(target)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse at once."""
    monkeypatch.setattr(locks, "_ENDING_S", 0.0)


def test_second_run_is_reported_who_writes(tmp_path: Path, hold: Callable) -> None:
    other = hold(tmp_path / "out")
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "half").touch()
    with pytest.raises(UserError) as caught, whole_folder(tmp_path / "out"):
        pass
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{tmp_path / 'out'}: is being written by process {other.pid} on ")
    assert f"on {os.uname().nodename} since 20" in first
    assert (tmp_path / ".out.part" / "half").exists(), "the other's work was touched"
    other.communicate("")
    with whole_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_locked_is_named_as_it_was_given(tmp_path: Path) -> None:
    where = tmp_path / ("x" * 245)  # with room for the name, and none for that of its lock
    with pytest.raises(OSError, match="name too long") as caught, alone(where):
        raise AssertionError("nothing is locked")
    assert caught.value.filename == str(where)


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="no /proc, where nothing can be created"
)
def test_a_folder_that_takes_no_file_ends_the_wait() -> None:
    with pytest.raises(FileNotFoundError) as caught, alone(Path("/proc/result")):
        raise AssertionError("nothing is locked")
    assert caught.value.filename == "/proc/result"


def test_one_place_by_two_names_is_one(tmp_path: Path, hold: Callable) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    hold(tmp_path / "real" / "out")
    with pytest.raises(UserError), alone(tmp_path / "link" / "." / "out"):
        pass


def test_killed_run_lets_go(tmp_path: Path, hold: Callable) -> None:
    other = hold(tmp_path / "out")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder_of(tmp_path / "out") is None
    with alone(tmp_path / "out"):
        assert holder_of(tmp_path / "out").process == Process.of(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_process_that_was_forked_does_not_outlive_the_lock(tmp_path: Path) -> None:
    (read_end, write_end), (ends, end) = os.pipe(), os.pipe()
    with alone(tmp_path / "out"):
        child = os.fork()
        if not child:
            os.close(end)
            os.write(write_end, b"x")
            os.read(ends, 1)
            os._exit(0)
        os.read(read_end, 1)  # it runs, so it has closed the file
        path = tmp_path / ".out.lock.part"
        path.rename(tmp_path / "kept")  # as after a kill, it is not removed
    (tmp_path / "kept").rename(path)
    assert holder_of(tmp_path / "out") is None
    os.close(end)
    os.waitpid(child, 0)
    for one in (read_end, write_end, ends):
        os.close(one)


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path, hold: Callable) -> None:
    other = hold(tmp_path / "out")
    other.stdin.write("\n")
    other.stdin.flush()
    with alone(tmp_path / "out", wait_s=20):
        assert holder_of(tmp_path / "out").process.pid == os.getpid()


def test_what_a_run_holds_it_may_ask_for_again_and_so_may_its_children(
    tmp_path: Path, hold: Callable
) -> None:
    with alone(tmp_path / "new" / "out"):
        with alone(tmp_path / "new" / "out"):
            pass
        child = hold(tmp_path / "new" / "out")
        child.communicate("")
        assert holder_of(tmp_path / "new" / "out"), "it was released too soon"
    assert list(tmp_path.iterdir()) == []


def test_run_of_another_host_is_not_taken_for_dead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = {"pid": 7, "host": "elsewhere", "boot": "b", "space": "s", "started": 1}
    holder = {"process": there, "since": 0.0, "command": "-m stages.train"}
    (tmp_path / ".out.lock.part").write_text(json.dumps(holder))
    assert holder_of(tmp_path / "out").process.host == "elsewhere"
    with alone(tmp_path / "out"):
        pass
    assert "process 7 on elsewhere since " in caplog.text


def test_process_of_another_time_or_container_is_another(tmp_path: Path) -> None:
    me = Process.of(os.getpid())
    assert me.is_here
    assert me.is_alive()
    values = vars(me)
    assert not Process(**values | {"started": me.started - 1}).is_alive(), "a number that is reused"
    assert not Process(**values | {"space": "pid:[1]"}).is_here, "a container of the same host name"
    assert not Process(**values | {"boot": "before"}).is_here


def test_state_of_another_clone_is_neither_shared_nor_removed(
    tmp_path: Path, hold: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path))
    theirs, ours = Checkpoint("train", "room", "a"), Checkpoint("train", "room", "b")
    for state in (theirs, ours):
        state.save({"step": 1})
    other = hold(theirs.folder)
    with pytest.raises(UserError, match="is being written by"), theirs.alone():
        pass
    forget("train", "room")
    assert theirs.load() == {"step": 1}
    assert ours.load() is None
    other.communicate("")
    forget("train", "room")
    assert list(tmp_path.rglob("*")) == [tmp_path / "train"]


def test_locks_that_a_file_system_lacks_stop_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with alone(tmp_path / "out"):
        pass
    assert "has no locks" in caplog.text
