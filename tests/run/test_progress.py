"""Progress: a bar where someone looks, lines in a log, never a carriage return there."""

import itertools
import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from stages.run import progress
from stages.run.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
# What a long stage does, with every report due.
LOOP = """
from stages.run import progress

progress.LINE_EVERY_S = 0.0
with progress.Progress("train", 4) as told:
    for step in range(1, 5):
        told.report(step, psnr=20.5 + step)
"""


def test_log_gets_lines_without_carriage_returns() -> None:
    done = subprocess.run([sys.executable, "-c", LOOP], cwd=ROOT, capture_output=True, check=True)
    assert b"\r" not in done.stdout + done.stderr
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("train: 25 % (1/4) psnr 21.5 memory ")
    assert len(lines) == 4
    assert all(line.endswith("s left") for line in lines)


def test_terminal_gets_a_bar() -> None:
    """A pseudo-terminal takes the place of the screen."""
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    child = subprocess.Popen([sys.executable, "-c", LOOP], cwd=ROOT, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(screen, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(screen)
    assert child.wait() == 0
    assert b"\r" in shown
    assert b"train" in shown


def test_lines_keep_their_distance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(step=2.0)  # seconds pass with every look at it
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress("tune", 100) as loop:
        for step in range(1, 60):
            loop.report(step)
    lines = capsys.readouterr().err.splitlines()
    # 59 reports 2 s apart: every fifth has a line.
    assert len(lines) == 11
