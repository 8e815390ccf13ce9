"""Ctrl-C and SIGTERM, whenever they come: the code 75, a line, and no traceback."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.run.entry import launch
from stages.run.process.stopping import PREEMPTED, Preemption, Stopped, too_late

ROOT = Path(__file__).resolve().parents[2]


def tell(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def code_of(main: Callable[[], None]) -> int:
    try:
        launch(main)
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_run_that_is_reported_to_stop_tidies_up_and_says_so(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before, tidied = signal.getsignal(number), []

    def main() -> None:
        try:
            tell(number)
        finally:
            tidied.append(True)

    assert code_of(main) == PREEMPTED == 75
    assert tidied
    assert capsys.readouterr().err == "stopped; run again to go on\n"
    assert signal.getsignal(number) == before


def test_what_the_signal_broke_is_no_error_of_its_own() -> None:
    def main() -> None:
        try:
            tell()
        except Stopped as stopped:
            raise ImportError("initialization failed") from stopped

    assert code_of(main) == 75


def test_loop_that_saves_hears_it_and_ends_by_its_own_will() -> None:
    heard = []

    def main() -> None:
        with Preemption() as preemption:
            tell()
            heard.append(preemption.noticed)
            sys.exit(PREEMPTED)

    assert code_of(main) == 75
    assert heard == [True]


def test_wish_that_came_after_the_last_step_ends_what_follows() -> None:
    went_on = []

    def main() -> None:
        with Preemption():
            tell(signal.SIGTERM)
        went_on.append(True)

    assert code_of(main) == 75
    assert not went_on


def test_second_signal_does_not_break_off_the_tidying() -> None:
    tidied = []

    def main() -> None:
        try:
            tell()
        finally:
            tell(signal.SIGTERM)
            tidied.append(True)

    assert code_of(main) == 75
    assert tidied


def test_wish_that_comes_when_all_is_written_is_too_late() -> None:
    done = []

    def main() -> None:
        too_late()
        tell()
        done.append(True)

    assert code_of(main) == 0
    assert done


def run(code: str, *signals: int) -> subprocess.Popen:
    """Start a process, wait for its first line, and send it signals."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    return process


def test_second_interrupt_kills_and_a_terminate_beside_it_does_not() -> None:
    code = """
import time
from stages.run.process.stopping import Preemption
try:
    with Preemption():
        print("ready", flush=True)
        time.sleep(1)
except KeyboardInterrupt:
    print("heard")
"""
    process = run(code, signal.SIGINT, signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT
    assert process.communicate()[1] == ""
    process = run(code, signal.SIGTERM, signal.SIGINT)
    assert process.wait(10) == 0


def hears(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "x 0")
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


ENTRIES = (("tune",), ("capture_train", "data", "result"), ("submit", "--dry-run"))


@pytest.mark.parametrize("words", ENTRIES, ids=lambda words: words[0])
def test_interrupt_while_a_command_starts_leaves_no_traceback(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    for delay_s in (0.0, 0.1, 0.4):
        process = subprocess.Popen(
            [sys.executable, "-m", f"stages.{words[0]}", *words[1:]],
            cwd=tmp_path,
            text=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        # Until the interpreter itself has started, signals are its own affair.
        while process.poll() is None and not hears(process.pid, signal.SIGTERM):
            time.sleep(0.002)
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        assert process.returncode in (75, 2), errors
