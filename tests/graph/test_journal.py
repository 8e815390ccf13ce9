"""Results that wait for dvc.lock: taken in once, whatever dies or happens meanwhile."""

from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException

from stages.graph import lock_file
from stages.graph.journal import Journal
from stages.graph.waiting import RESULTS, waits


def stage(number: int) -> dict[str, Any]:
    return {
        "cmd": f"python -m x {number}",
        "params": {"params.yaml": {"train.steps": number, "names": ["a", "b: c", ""]}},
        "outs": [{"path": f"data/{number}", "hash": "md5", "md5": f"{number:032}", "size": 1}],
    }


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "dvc.lock"


def stages(lock: Path) -> dict[str, Any]:
    value = lock_file.load(lock)
    return value["stages"] if value else {}


def test_results_are_taken_in_once(journal: Journal, lock: Path) -> None:
    assert not journal.take_in()
    assert not lock.exists()
    for number in range(3):
        assert journal.add(lock, {f"train@s{number}": stage(number)})
    assert journal.has(lock, "train@s1")
    assert not journal.has(lock, "train@s3")
    assert waits(journal.root)
    assert stages(lock) == {}
    assert journal.take_in()
    assert stages(lock) == {f"train@s{number}": stage(number) for number in range(3)}
    assert not waits(journal.root)
    assert not journal.take_in()
    assert journal.add(lock, {"train@s1": stage(7)})
    assert journal.add(lock, {"train@s1": stage(8)}), "of two, the later one"
    journal.take_in()
    assert stages(lock)["train@s1"] == stage(8)
    assert stages(lock)["train@s0"] == stage(0)


def test_recorder_that_dies_is_followed_by_another(
    journal: Journal, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_file.record(lock, {"train@s0": stage(0)})
    journal.add(lock, {"train@s0": stage(1), "train@s1": stage(1)})

    class Killed(BaseException):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lock_file, "record_blocks", dies)
        with pytest.raises(Killed):
            journal.take_in()
    assert stages(lock) == {"train@s0": stage(0)}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(Killed):
            journal.take_in()
    assert waits(journal.root)
    journal.take_in()
    assert stages(lock) == {"train@s0": stage(1), "train@s1": stage(1)}
    assert not waits(journal.root)


def test_result_is_dropped_where_a_newer_one_is_recorded(journal: Journal, lock: Path) -> None:
    """As by `dvc repro`, before anything took in the older one."""
    lock_file.record(lock, {"train@s0": stage(0)})
    journal.add(lock, {"train@s0": stage(1), "train@s1": stage(1), "train@s2": stage(1)})
    lock_file.record(lock, {"train@s0": stage(2), "train@s1": stage(2)})
    journal.take_in()
    expected = {"train@s0": stage(2), "train@s1": stage(2), "train@s2": stage(1)}
    assert stages(lock) == expected


def test_names_that_need_quotes_are_not_taken(journal: Journal, lock: Path) -> None:
    assert not journal.add(lock, {"a b@c": stage(1)})
    assert not waits(journal.root)


def test_lock_file_in_another_layout_keeps_its_entries(journal: Journal, lock: Path) -> None:
    lock.write_text("schema: '2.0'\nstages:\n  # by hand\n  a:\n    cmd: x\n")
    journal.add(lock, {"train@s0": stage(0)})
    journal.take_in()
    assert "by hand" in lock.read_text()
    assert "python -m x 0" in lock.read_text()
    assert not waits(journal.root)


def test_conflict_in_the_lock_file_keeps_the_results_waiting(journal: Journal, lock: Path) -> None:
    text = "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a:\n    cmd: x\n=======\n>>>>>>> other\n"
    lock.write_text(text)
    journal.add(lock, {"train@s0": stage(0)})
    with pytest.raises(DvcException):
        journal.take_in()
    assert lock.read_text() == text
    assert waits(journal.root)
    lock.write_text("schema: '2.0'\nstages:\n  a:\n    cmd: x\n")
    journal.take_in()
    assert set(stages(lock)) == {"a", "train@s0"}


@pytest.mark.parametrize("broken", ["conflict", "no text"])
def test_result_of_a_recorded_stage_waits_while_its_entry_cannot_be_read(
    journal: Journal, lock: Path, broken: str
) -> None:
    """The entry there is no newer result, only half of a merge."""
    lock_file.record(lock, {"train@s0": stage(0)})
    journal.add(lock, {"train@s0": stage(1)})
    whole = lock.read_bytes()
    cmd = b"    cmd: python -m x 0\n"
    sides = b"<<<<<<< HEAD\n" + cmd + b"=======\n    cmd: other\n>>>>>>> other\n"
    content = whole.replace(cmd, sides) if broken == "conflict" else whole + b"\xff\xfe"
    lock.write_bytes(content)
    with pytest.raises(DvcException):
        journal.take_in()
    assert lock.read_bytes() == content
    assert journal.has(lock, "train@s0")
    lock.write_bytes(whole)
    journal.take_in()
    assert stages(lock) == {"train@s0": stage(1)}


def test_lock_files_of_other_folders_are_their_own(journal: Journal, lock: Path) -> None:
    other = journal.root / "part" / "dvc.lock"
    other.parent.mkdir()
    journal.add(lock, {"a": stage(0)})
    journal.add(other, {"a": stage(1)})
    assert len(list((journal.root / RESULTS).iterdir())) == 2
    journal.take_in()
    assert (stages(lock), stages(other)) == ({"a": stage(0)}, {"a": stage(1)})
