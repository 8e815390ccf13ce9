"""Fixtures: a small project, alone and with a cluster."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Cluster
from project import Project, Submit
from s3_server import Server

from stages.run.entry import launch
from stages.submit import main


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project of two items, to be copied: making one takes seconds."""
    project = Project(tmp_path_factory.mktemp("template") / "project")
    project.create(["a", "bb"])
    return project


@pytest.fixture
def project(template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project of its own, and the folder that this process is in."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    shutil.copytree(template.folder, folder)
    monkeypatch.chdir(folder)
    project = Project(folder)
    monkeypatch.setenv("PATH", project.env["PATH"])
    monkeypatch.setenv("PYTHONPATH", project.env["PYTHONPATH"])
    return project


@pytest.fixture
def submit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Submit:
    """`python -m stages.submit ...` in this process, which has imported DVC: code and output."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["stages.submit", *words])
        try:
            launch(main)
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture
def sent(project: Project, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project whose jobs go to the cluster."""
    project.env["SLURM_CONF"] = str(slurm.conf)
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    return project


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """An S3 server that tests of one worker share."""
    made = Server()
    yield made
    made.running.stop()
