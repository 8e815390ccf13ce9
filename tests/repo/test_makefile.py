"""The Makefile on machines as users have them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

# Runs `-c CODE` as another version would.
OTHER_PYTHON = """#!/bin/sh
exec python -c 'import sys; sys.version_info = ({version}, 0, "final", 0); exec(sys.argv[2])' "$@"
"""


@pytest.mark.parametrize(("version", "named"), [("3, 10", "3.10"), ("3, 14", "3.14")])
def test_python_of_another_version_is_refused_before_anything_is_made(
    version: str, named: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "other_python"
    python.write_text(OTHER_PYTHON.format(version=version))
    python.chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert f"is Python {named}\n  expected: 3.11, 3.12 or 3.13\n" in made.stderr
    assert "fix: install one and name it: make setup PYTHON=python3.11\n" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_environment_that_another_python_left_half_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    left = tmp_path / ".venv" / "bin" / "python"
    left.parent.mkdir(parents=True)
    left.symlink_to("/usr/bin/python3.that-is-gone")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # stops after the environment is made
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    subprocess.run([left, "-c", "pass"], check=True)


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("repro", ["python -m stages.check", "python -m stages.repro"]),
        ("check", ["python -m stages.check"]),
        ("lint", ["ruff format --check .", "ruff check ."]),
        ("test", ["ruff format --check .", "ruff check .", "python -m pytest"]),
    ],
)
def test_targets_run_the_ordinary_commands(target: str, runs: list[str], tmp_path: Path) -> None:
    """With stand-ins in the environment, which note how they were called."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "decision.md").write_text("# Found\n\n## First\n\n## Second\n")
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (tmp_path / ".venv" / "installed").touch()
    for name in ("python", "dvc", "ruff"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> called.txt\n')
        (folder / name).chmod(0o755)
    subprocess.run(["make", target], cwd=tmp_path, capture_output=True, check=True)
    called = iter((tmp_path / "called.txt").read_text().splitlines())
    for run in runs:
        assert any(line.startswith(run) for line in called), f"{run} is not run, or too early"
