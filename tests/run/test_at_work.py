"""A stage that says nothing for long shows that it is at work."""

import re
import sys
import time

import pytest

from stages.run import at_work as module
from stages.run.at_work import at_work, others_speak, spoke
from stages.run.entry import launch
from stages.run.process.parallel import run_all
from stages.run.progress import Progress


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.2)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_silence_is_broken_by_the_time_spent(capsys: pytest.CaptureFixture[str]) -> None:
    with at_work("calibration of room"):
        time.sleep(0.9)
    shown = lines(capsys)
    assert 1 <= len(shown) <= 4
    assert re.fullmatch(r"calibration of room: \d+ s", shown[0])
    time.sleep(0.4)
    assert lines(capsys) == []


def test_stage_that_speaks_or_is_quick_has_no_such_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with at_work("quick"):
        pass
    with at_work("talkative"):
        for _ in range(8):
            time.sleep(0.05)
            spoke()
    assert lines(capsys) == []


def test_stage_of_dvc_is_at_work_in_whatever_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_STAGE", "report")

    def main() -> None:
        with at_work("a part of it"):
            time.sleep(0.9)

    launch(main)
    assert {line.partition(":")[0] for line in lines(capsys)} == {"report"}


def test_children_and_bars_speak_for_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    with at_work("train"):
        run_all([[sys.executable, "-c", "import time; time.sleep(0.6)"]], 1)
        with others_speak():
            time.sleep(0.5)
    assert lines(capsys) == []


def test_slow_steps_of_a_loop_are_bridged(capsys: pytest.CaptureFixture[str]) -> None:
    with at_work("pairs"), Progress("pairs of room", 2) as progress:
        time.sleep(0.7)
        progress.report(1)
    assert re.fullmatch(r"pairs: \d+ s", lines(capsys)[0])


def test_time_of_another_process_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    busy = [True]
    with at_work("DVC hashes", lambda: busy[0]):
        time.sleep(0.6)
        assert lines(capsys) == []
        busy[0] = False
        time.sleep(0.45)
    shown = lines(capsys)
    assert set(shown) == {"DVC hashes: 0 s"}, "counted from the end of the other process"
