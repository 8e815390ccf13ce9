"""A stage ends with the DVC that started it, and no other command ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Starts its command as DVC does; some shells stay in between.
DVC = """
import os, subprocess, sys
with subprocess.Popen(sys.argv[1:], env=os.environ | {"DVC_STAGE": "train@a"}) as command:
    command.wait()
"""
STAGE = """
import os, sys, time
from stages.run.entry import launch

def main():
    try:
        print(os.getpid(), flush=True)
        time.sleep(60)
    finally:
        print("tidied", flush=True)

launch(main)
"""


def start(*words: str) -> tuple[subprocess.Popen, int]:
    """A process, and the number of the stage that it leads to."""
    process = subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("shell", ["exec", "stays"])
def test_stage_tidies_up_and_ends_when_its_dvc_is_killed(shell: str) -> None:
    command = f"{sys.executable} -c '{STAGE}'" + ("; true" if shell == "stays" else "")
    dvc, _ = start(sys.executable, "-c", DVC, "sh", "-c", command)
    dvc.kill()
    # Its output ends when the last process that could write there has ended.
    assert dvc.communicate(timeout=20)[0] == "tidied\n"


def test_command_that_no_dvc_started_outlives_its_shell() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    shell = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -c '{STAGE}'; true"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        env=environment,
    )
    pid = int(shell.stdout.readline())
    shell.kill()
    shell.wait()
    time.sleep(0.5)
    os.kill(pid, signal.SIGTERM)  # raises where there is none
    assert shell.communicate(timeout=20)[0] == "tidied\n"
