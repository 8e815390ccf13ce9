"""Stage `code` under DVC: which stages rerun after comments, edits and new versions."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
ENTRY = '''"""Entry {name}."""

from pathlib import Path

from stages.run.entry import launch


def main() -> None:
    from stages.scenes.greeting import word
    Path("ran.log").open("a").write("{name} ")
    Path("data", "{name}.txt").write_text(word())


if __name__ == "__main__":
    launch(main)
'''
GREETING = '''"""What is said."""


def word() -> str:
    # the shortest
    return "hi"
'''
GRAPH = """stages:
  code:
    cmd: python -m stages.code
    deps: [requirements.lock, stages]
    outs: [data/code/first.txt, data/code/second.txt]
  first:
    cmd: python -m stages.first
    deps: [data/code/first.txt]
    outs: [data/first.txt]
  second:
    cmd: python -m stages.second
    deps: [data/code/second.txt, data/first.txt]
    outs: [data/second.txt]
"""
Call = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of this repository's code with two stages that import the same module."""
    folder = tmp_path / "project"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=ignore)
    for name in ("params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy2(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["slurm"] |= {"stages": {}, "group": {}, "pack": {}}
    yaml.dump(params, folder / "params.yaml")
    for name in ("first", "second"):
        (folder / "stages" / f"{name}.py").write_text(ENTRY.format(name=name))
    (folder / "stages/scenes/greeting.py").write_text(GREETING)
    (folder / "dvc.yaml").write_text(GRAPH)
    ignored = "/data/\n/.work/\n/ran.log\n/slurm_logs/\n__pycache__/\n*.part\n"
    (folder / ".gitignore").write_text(ignored)
    return folder


@pytest.fixture
def call(project: Path) -> Call:
    """Runs a command in the project and returns its output. The stages have run, committed."""
    unwanted = ("DVC_", "SLURM_", "SPLATFIX_", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    env["DVC_SITE_CACHE_DIR"] = str(project.parent / "site")

    def run(words: str) -> str:
        done = subprocess.run(
            words.split(), cwd=project, env=env, capture_output=True, text=True, timeout=120
        )
        assert not done.returncode, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    for words in (
        "git init -q",
        "git config user.email t@localhost",
        "git config user.name t",
        "dvc init -q",
        "dvc config core.autostage true",
        "dvc repro -q",
        "git add -A",
        "git commit -qm ran",
    ):
        run(words)
    ran(project)
    return run


def ran(project: Path) -> list[str]:
    """Stages except `code` that ran since the last call."""
    log = project / "ran.log"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def edit(project: Path, old: str, new: str, file: str = "stages/scenes/greeting.py") -> None:
    path = project / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.slow
def test_plan_and_reruns_after_edits(project: Path, call: Call) -> None:
    assert "Running" not in call("dvc repro"), "a second run starts nothing"

    edit(project, "# the shortest", "# the friendliest")
    lock = (project / "dvc.lock").read_text()
    output = call("python -m stages.plan")
    assert "1 of 3 stages would run" in output
    assert "stages modified" in output
    assert (project / "dvc.lock").read_text() == lock
    call("dvc repro")
    assert ran(project) == []

    edit(project, '"hi"', '"hello"')
    output = call("python -m stages.plan first")
    assert "stages/scenes/greeting.py changed" in output
    assert "2 of 2 stages would run" in output
    call("dvc repro second")
    assert ran(project) == ["first", "second"]
    assert (project / "data/second.txt").read_text() == "hello"

    lines = (project / "requirements.lock").read_text().splitlines()
    (pin,) = (line for line in lines if line.startswith("ruamel-yaml=="))
    edit(project, f"{pin}\n", "ruamel-yaml==9.9\n", "requirements.lock")
    output = call("python -m stages.plan")
    assert f"ruamel-yaml {pin.removeprefix('ruamel-yaml==')} -> 9.9" in output
    call("dvc repro")
    assert ran(project) == ["first", "second"]
    assert call("dvc status") == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_a_forced_stage_is_recorded_with_the_code_that_ran(project: Path, call: Call) -> None:
    edit(project, '"hi"', '"hello"')
    call("dvc repro -s -f first")
    assert ran(project) == ["first"]
    call("dvc repro")
    assert ran(project) == ["second"], "first is recorded with this code"


@pytest.mark.slow
def test_older_commits_bring_their_digests_back(project: Path, call: Call) -> None:
    edit(project, '"hi"', '"hello"')
    call("dvc repro -q")
    call("git commit -qam edited")
    call("git checkout -q HEAD~1")
    call("dvc checkout -q")
    assert call("dvc status") == "Data and pipelines are up to date.\n"
    assert "nothing would run" in call("python -m stages.plan")


@pytest.mark.slow
def test_experiments_have_their_own_digests(project: Path, call: Call) -> None:
    edit(project, '"hi"', '"hello"')
    ran(project)
    call("dvc exp run --temp -n other")
    assert call("dvc get . data/second.txt --rev other --show-url").strip()
    assert (project / "data/second.txt").read_text() == "hi"
    call("dvc exp apply other")
    assert (project / "data/second.txt").read_text() == "hello"
    assert call("dvc status") == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_submissions_bring_digests_up_to_date(project: Path, call: Call) -> None:
    edit(project, "# the shortest", "# the friendliest")
    assert "nothing is stale" in call("python -m stages.submit --local")
    assert call("dvc status") == "Data and pipelines are up to date.\n"

    edit(project, '"hi"', '"hello"')
    lock = (project / "dvc.lock").read_text()
    output = call("python -m stages.submit --local --dry-run")
    assert "first x 1" in output
    assert "second x 1" in output
    assert "code" not in output
    assert (project / "dvc.lock").read_text() == lock
    call("python -m stages.submit --local -n other")
    assert (project / ".work/experiments/other/data/second.txt").read_text() == "hello"
    assert (project / "data/second.txt").read_text() == "hi"
    ran(project)
    call("python -m stages.submit --local")
    assert ran(project) == [], "results of the same code are in the cache"
    assert call("dvc status") == "Data and pipelines are up to date.\n"
