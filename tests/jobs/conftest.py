"""Fixtures: a small project, alone and with a cluster."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.cli import main as dvc_main
from loopback import Cluster
from project import Dvc, Project, Submit
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
def dvc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """DVC's command line in this process, in a folder: its exit code and what it printed."""

    def run(folder: Path, *words: str) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        for name in ("dvc", "dvc_data", "dvc_objects"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            for handler in logger.handlers:  # made for the streams of an earlier test
                is_error = handler.level >= logging.WARNING
                handler.stream = sys.stderr if is_error else sys.stdout
        code = dvc_main(list(words))
        told = capsys.readouterr()
        return code, told.out + told.err

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
