"""Fixtures: a small project, and a real cluster on loopback."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Cluster, free_port
from project import Project, Submit

from stages.run.errors import UserError
from stages.submit import main

SCRIPT = Path(__file__).with_name("loopback_cluster.sh")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A cluster that tests of one worker share."""
    missing = [name for name in DAEMONS if not shutil.which(name)]
    if missing:
        told = f"{', '.join(missing)} missing: install slurmctld slurmd slurm-client munge"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    # munged wants every parent of its socket open to others, which pytest's folders are not.
    folder = Path(tempfile.mkdtemp(prefix="splatfix-slurm-"))
    folder.chmod(0o755)
    env = {**os.environ, "SLURM_PORT": str(free_port(5))}
    subprocess.run(["bash", SCRIPT, "up", folder], check=True, timeout=120, env=env)
    yield Cluster(folder / "slurm.conf")
    subprocess.run(["bash", SCRIPT, "down", folder], check=True, timeout=120)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project of two items, to be copied: making one takes seconds."""
    made = Project(tmp_path_factory.mktemp("template") / "project")
    made.create(["a", "bb"])
    return made


@pytest.fixture
def project(template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project of its own, and the folder that this process is in."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    shutil.copytree(template.folder, folder)
    monkeypatch.chdir(folder)
    made = Project(folder)
    monkeypatch.setenv("PATH", made.env["PATH"])
    monkeypatch.setenv("PYTHONPATH", made.env["PYTHONPATH"])
    return made


@pytest.fixture
def submit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Submit:
    """`python -m stages.submit ...` in this process, which has imported DVC: code and output."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["stages.submit", *words])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except UserError as error:
            print(error)
            code = 2
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def sent(project: Project, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project whose jobs go to the cluster."""
    project.env["SLURM_CONF"] = str(slurm.conf)
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    return project
