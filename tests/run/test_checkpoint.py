"""Resume states: how often they are saved, and what they are tied to."""

import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stages.run import checkpoint
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError


class Clock:
    """Time that passes only when a test advances it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    @contextmanager
    def writing(self, seconds: float):
        self.now += seconds
        yield


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path))
    monkeypatch.setattr(checkpoint, "time", Clock())
    return checkpoint.time


def test_unwritable_folder_is_reported_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "file"))
    with pytest.raises(UserError, match="is a file"):
        Checkpoint("train", "room", "key")


def test_saving_slow_states_takes_a_tenth_of_the_time(clock: Clock) -> None:
    state = Checkpoint("train", "test", "key")
    assert state.affordable()
    state.save({"step": torch.ones(1)}, clock.writing(3.0))
    spent, began = 0.0, clock.now
    for _ in range(1000):
        clock.now += 0.5
        if state.affordable():
            state.save({"step": torch.ones(1)}, clock.writing(3.0))
            spent += 3.0
    assert spent / (clock.now - began) == pytest.approx(0.1, abs=0.005)


def test_brief_states_are_always_affordable(clock: Clock) -> None:
    state = Checkpoint("train", "test", "key")
    state.save({"step": torch.ones(1)}, clock.writing(0.1))
    assert state.affordable()


def test_state_of_a_stage_is_tied_to_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    main = SimpleNamespace(__spec__=SimpleNamespace(name="stages.train"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    by_hand = Checkpoint("train", "room", "key").folder
    digest = Path("data/code/train.txt")
    digest.parent.mkdir(parents=True)
    digest.write_text("stages/train.py 1\n")
    assert Checkpoint("train", "room", "key").folder == by_hand
    monkeypatch.setenv("DVC_STAGE", "train@room")
    first = Checkpoint("train", "room", "key").folder
    assert first == Checkpoint("train", "room", "key").folder
    digest.write_text("stages/train.py 2\n")
    assert len({by_hand, first, Checkpoint("train", "room", "key").folder}) == 3
