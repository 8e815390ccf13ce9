"""Data on S3, through a server on loopback that checks credentials."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from socket import SHUT_RDWR, create_connection, create_server, socket

import pytest
from project import ROOT, Dvc, Project, Submit
from s3_server import BUCKET, Server

from stages.run.files import folder_hash

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("s3")]


class Flaky:
    """A way to the server that breaks each connection after some bytes, until it is mended."""

    def __init__(self, port: int):
        self.target, self.limit = port, 0
        self.listener = create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:  # closed
                return
            far = create_connection(("127.0.0.1", self.target))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket, target: socket) -> None:
        passed = 0
        try:
            while data := source.recv(4096):
                passed += len(data)
                if self.limit and passed > self.limit:
                    break
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(SHUT_RDWR)
            except OSError:
                continue


@pytest.fixture
def stored(
    project: Project, server: Server, submit: Submit, monkeypatch: pytest.MonkeyPatch, dvc: Dvc
) -> Project:
    """A project with results and a remote set up as docs/cluster.md says."""
    for name, value in server.key.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    url = f"s3://{BUCKET}/{project.folder.parent.name}"
    for words in (
        ("remote", "add", "-q", "-d", "store", url),
        ("remote", "modify", "store", "endpointurl", server.url),
    ):
        assert dvc(project.folder, *words)[0] == 0
    assert submit("--local")[0] == 0
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "Results")
    project.ran()
    return project


def clone(project: Project) -> Project:
    """A clone of a project beside it, without any data."""
    folder = project.folder.with_name("clone")
    project.run("git", "clone", "-q", str(project.folder), str(folder))
    shutil.copy2(project.folder / "work.json", folder)
    return Project(folder)


def test_clone_pulls_what_was_pushed_and_has_nothing_to_do(
    stored: Project, server: Server, dvc: Dvc, tmp_path: Path
) -> None:
    code, output = dvc(stored.folder, "push")
    assert code == 0, output
    assert "in sync" in dvc(stored.folder, "status", "--cloud")[1]
    other = clone(stored)
    code, output = dvc(other.folder, "pull")
    assert code == 0, output
    assert folder_hash(other.folder / "data") == folder_hash(stored.folder / "data")
    assert "up to date" in dvc(other.folder, "repro")[1]
    assert other.ran() == []


def test_node_fetches_only_what_its_stage_needs(stored: Project, dvc: Dvc) -> None:
    assert dvc(stored.folder, "push")[0] == 0
    other = clone(stored)
    graph = other.folder / "dvc.yaml"
    graph.write_text(graph.read_text().replace("work.py double ", "work.py  double "))
    words = ("repro", "--pull", "--allow-missing", "--single-item", "double@a")
    code, output = dvc(other.folder, *words)
    assert code == 0, output
    assert other.ran() == ["double@a"]
    assert sorted(path.name for path in other.folder.glob("data/*/*.txt")) == ["a.txt", "a.txt"]
    assert (other.folder / "data/b/a.txt").read_text() == "2"


def test_experiment_travels_with_its_params_and_metrics(
    stored: Project, submit: Submit, dvc: Dvc
) -> None:
    assert submit("--local", "-n", "more", "-S", "plus=5")[0] == 0
    stored.run("git", "init", "-q", "--bare", str(stored.folder.with_name("origin.git")))
    stored.run("git", "remote", "add", "origin", str(stored.folder.with_name("origin.git")))
    stored.run("git", "push", "-q", "origin", "HEAD")
    code, output = dvc(stored.folder, "exp", "push", "-q", "origin", "more")
    assert code == 0, output
    folder = stored.folder.with_name("clone")
    stored.run("git", "clone", "-q", str(stored.folder.with_name("origin.git")), str(folder))
    code, output = dvc(folder, "exp", "pull", "-q", "origin", "more")
    assert code == 0, output
    other = Project(folder)
    shown = json.loads(other.run("dvc", "metrics", "diff", "--json", "HEAD", "more").stdout)
    assert shown["total.json"]["total"]["diff"] == 20
    shown = json.loads(other.run("dvc", "params", "diff", "--json", "HEAD", "more").stdout)
    assert shown["params.yaml"]["plus"] == {"old": 0, "new": 5, "diff": 5}
    assert dvc(folder, "exp", "apply", "-q", "more")[0] == 0
    assert (folder / "data/a/a.txt").read_text() == "6"


def test_raw_data_is_imported_from_s3_with_what_it_was(
    stored: Project, server: Server, dvc: Dvc
) -> None:
    client = server.client("s3")
    for name in ("cameras/rgb_cameras.npz", "images/4/000021.png"):
        client.put_object(Bucket=BUCKET, Key=f"raw/scene/{name}", Body=name.encode())
    source = "remote://raw/scene"
    assert dvc(stored.folder, "remote", "add", "-q", "raw", f"s3://{BUCKET}/raw")[0] == 0
    assert dvc(stored.folder, "remote", "modify", "raw", "endpointurl", server.url)[0] == 0
    code, output = dvc(stored.folder, "import-url", "-q", source, "raw_scene")
    assert code == 0, output
    assert (stored.folder / "raw_scene/images/4/000021.png").read_text() == "images/4/000021.png"
    told = (stored.folder / "raw_scene.dvc").read_text()
    assert source in told
    assert "frozen: true" in told


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_give_one_clear_message(
    stored: Project, dvc: Dvc, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    before = folder_hash(stored.folder / ".dvc/cache/files")
    monkeypatch.setenv(wrong, "wrong")
    code, output = dvc(stored.folder, "push")
    assert code != 0
    assert output.count("ERROR") == 1
    assert re.search(
        "Access Key Id you provided does not exist|signature .* does not match", output
    )
    assert "Traceback" not in output
    assert folder_hash(stored.folder / ".dvc/cache/files") == before


def test_broken_transfer_fails_clearly_and_the_next_one_completes(
    stored: Project, server: Server, dvc: Dvc
) -> None:
    way = Flaky(server.port)
    address = f"http://127.0.0.1:{way.port}"
    big = os.urandom(300_000)
    (stored.folder / "big.bin").write_bytes(big)
    for words in (
        ("add", "-q", "big.bin"),
        ("remote", "modify", "--local", "store", "endpointurl", address),
        ("remote", "modify", "--local", "store", "read_timeout", "2"),
        ("remote", "modify", "--local", "store", "connect_timeout", "2"),
    ):
        assert dvc(stored.folder, *words)[0] == 0
    before = folder_hash(stored.folder / ".dvc/cache/files")
    way.limit = 50_000
    code, output = dvc(stored.folder, "push")
    assert code != 0
    assert "ERROR" in output
    assert folder_hash(stored.folder / ".dvc/cache/files") == before
    way.limit = 0
    assert dvc(stored.folder, "push")[0] == 0

    (stored.folder / "big.bin").unlink()
    shutil.rmtree(stored.folder / ".dvc/cache")
    way.limit = 50_000
    assert dvc(stored.folder, "pull", "big.bin")[0] != 0
    assert not (stored.folder / "big.bin").exists()
    way.limit = 0
    code, output = dvc(stored.folder, "pull")
    assert code == 0, output
    assert (stored.folder / "big.bin").read_bytes() == big


def test_server_that_never_answers_is_given_up_with_a_message(
    project: Project, dvc: Dvc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings of docs/cluster.md, but shorter times."""
    page = (ROOT / "docs/cluster.md").read_text()
    lines = re.findall(
        r"^dvc (remote modify store (?:read|connect)_timeout) \d+", page, re.MULTILINE
    )
    assert len(lines) == 2
    (attempts,) = set(re.findall(r"^export (AWS_MAX_ATTEMPTS)=1", page, re.MULTILINE))
    monkeypatch.setenv(attempts, "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    (project.folder / "data.bin").write_bytes(b"1")
    with create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for words in (
            ("add", "-q", "data.bin"),
            ("remote", "add", "-q", "-d", "store", f"s3://{BUCKET}/silent"),
            ("remote", "modify", "store", "endpointurl", address),
            *((*line.split(), "1") for line in lines),
        ):
            assert dvc(project.folder, *words)[0] == 0
        began = time.monotonic()
        code, output = dvc(project.folder, "push")
    assert code != 0
    assert f'Read timeout on endpoint URL: "{address}' in output
    assert 5 <= time.monotonic() - began < 60, "five times"


SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|aws_secret_access_key\s*=\s*[A-Za-z0-9/+]{20}|secret_access_key = |"
    r"hf_[A-Za-z0-9]{20}|ghp_[A-Za-z0-9]{20}|-----BEGIN [A-Z ]*PRIVATE KEY"
)


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "A" * 16,
        "aws_secret_access_key = " + "a" * 40,
        "    secret_access_key = x",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
)
def test_secret_is_recognised(text: str) -> None:
    assert SECRETS.search(text)


def test_no_secret_is_in_git() -> None:
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    assert ".dvc/config.local" not in names
    found = [
        f"{name}: {match[0]}"
        for name in names
        if name != "tests/jobs/test_s3.py"
        and (match := SECRETS.search((ROOT / name).read_text(errors="replace")))
    ]
    assert found == []
