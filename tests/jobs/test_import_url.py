"""`dvc import-url` as the documents write it, in a fresh clone: folders, S3, checkpoints."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from project import ROOT
from raw_sequences import write_raw_sequence
from ruamel.yaml import YAML
from s3_server import BUCKET, Server

from stages.run.embedded_data import MARK
from stages.run.files import folder_hash

SCENE, CAMERAS = "hi4d_pair15_fight", (4, 16, 28, 40, 52, 64, 76, 88)
RAW = Path("data/raw", SCENE)
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("s3")]


class Clone:
    """A clone of this repository as it is now, without data."""

    def __init__(self, folder: Path, tmp: Path):
        self.folder = folder
        unwanted = ("DVC_", "SPLATFIX_", "AWS_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
        self.environment = {
            **kept,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]]),
            "DVC_SITE_CACHE_DIR": str(tmp / "site"),
        }

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line in a shell, as a user would."""
        environment = {**self.environment, **variables}
        words = ["bash", "-c", command]
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )

    def must(self, command: str, **variables: str) -> str:
        """Output of a line that succeeds."""
        ended = self.run(command, **variables)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def use_own_data(self) -> None:
        """The edits of params.yaml that the documents ask for."""
        yaml = YAML()
        params = yaml.load(self.folder / "params.yaml")
        params["demo"]["scenes"].remove(SCENE)
        params["scenes"][SCENE]["source"] = "hi4d"
        yaml.dump(params, self.folder / "params.yaml")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree, as one commit."""
    folder = tmp_path_factory.mktemp("origin")
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/", "metrics/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for words in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "Begin"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Clone:
    """A fresh clone."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], check=True)
    return Clone(folder, tmp_path)


def documented(page: str, pattern: str, places: Mapping[str, str]) -> str:
    """The only command of a page that matches, its placeholders filled in."""
    (command,) = set(re.findall(pattern, (ROOT / page).read_text(), re.MULTILINE))
    for name, place in places.items():
        assert name in command, f"{page}: {command} has no {name}"
        command = command.replace(name, place)
    return command


def test_folder_is_imported_prepared_and_updated(clone: Clone, tmp_path: Path) -> None:
    source = write_raw_sequence(tmp_path / "hi4d/pair15/fight15", CAMERAS)
    (block,) = re.findall(
        r"^```\n(rm -rf data/raw/[^`]*)```", (ROOT / "README.md").read_text(), re.M
    )
    lines = block.replace("/datasets", str(tmp_path)).splitlines()
    (clone.folder / RAW).mkdir(parents=True)
    (clone.folder / RAW / MARK).write_text("{}")
    import_line = next(line for line in lines if "import-url" in line)
    refused = clone.run(import_line)
    assert refused.returncode
    assert "git-ignored" in refused.stderr, "not into the demo's copy"
    clone.must(lines[0])
    refused = clone.run(import_line)
    assert "is already specified in stage: 'raw@hi4d_pair15_fight'" in refused.stderr
    clone.use_own_data()
    for line in lines:
        clone.must(line)
    assert folder_hash(clone.folder / RAW) == folder_hash(source)
    assert (clone.folder / "data/scenes" / SCENE / "split.csv").is_file()
    status = clone.must("git status --short --untracked-files=all").splitlines()
    assert f"A  {RAW}.dvc" in status
    assert not [line for line in status if "??" in line], "data is not offered to git"
    shown = clone.must("python -m stages.submit --dry-run prepare@hi4d_pair15_fight")
    assert "nothing is stale" in shown

    (source / "meta.npz").write_bytes(b"newer")
    update = documented("docs/cluster.md", r"`(dvc update data/raw/[^`]*)`", {})
    clone.must(update)
    assert folder_hash(clone.folder / RAW) == folder_hash(source)
    assert "scene x 1 (prepare)" in clone.must(
        "python -m stages.submit --dry-run prepare@hi4d_pair15_fight"
    )
    shutil.rmtree(clone.folder / RAW)
    clone.must(f"dvc checkout {RAW}.dvc")
    assert folder_hash(clone.folder / RAW) == folder_hash(source)


def test_folder_is_imported_from_s3(clone: Clone, tmp_path: Path, server: Server) -> None:
    source = write_raw_sequence(tmp_path / "fight15", CAMERAS, frames=(21,), masks=())
    client = server.client("s3")
    for path in filter(Path.is_file, source.rglob("*")):
        key = f"hi4d/pair15/fight15/{path.relative_to(source)}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    variables = {name.upper(): value for name, value in server.key.items()}
    page, pattern = "docs/cluster.md", r"`(export AWS_ENDPOINT_URL=[^`]*)`"
    export = documented(page, pattern, {"https://ENDPOINT": server.url})
    line = documented(page, r"`(dvc import-url s3://[^`]*)`", {"BUCKET": BUCKET})
    clone.use_own_data()
    clone.must(f"{export}; {line}", AWS_DEFAULT_REGION="us-east-1", **variables)
    assert folder_hash(clone.folder / RAW) == folder_hash(source)
    assert "s3://" in (clone.folder / f"{RAW}.dvc").read_text()
    (source / "meta.npz").write_bytes(b"newer")
    client.put_object(Bucket=BUCKET, Key="hi4d/pair15/fight15/meta.npz", Body=b"newer")
    update = documented(page, r"`(dvc update data/raw/[^`]*)`", {})
    clone.must(f"{export}; {update}", AWS_DEFAULT_REGION="us-east-1", **variables)
    assert folder_hash(clone.folder / RAW) == folder_hash(source)


def test_images_of_a_capture_are_imported_by_the_command_in_the_message(
    clone: Clone, tmp_path: Path
) -> None:
    (tmp_path / "photos/images").mkdir(parents=True)
    (tmp_path / "photos/images/a.jpg").write_bytes(b"a")
    yaml = YAML()
    params = yaml.load(clone.folder / "params.yaml")
    params["captures"]["kitchen"] = {**params["captures"]["demo_room"]}
    params["capture_study"]["captures"].append("kitchen")
    yaml.dump(params, clone.folder / "params.yaml")
    told = clone.run("python -m stages.check").stderr
    (line,) = re.findall(r"fix: (dvc import-url FOLDER \S+)", told)
    clone.must(line.replace("FOLDER", str(tmp_path / "photos")))
    assert (clone.folder / "data/raw/kitchen/images/a.jpg").read_bytes() == b"a"
    assert "import-url" not in clone.run("python -m stages.check").stderr


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Address of a server on loopback with the files of tmp_path/web."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            self.send_header("ETag", '"1"')
            super().end_headers()

    handler = partial(Quiet, directory=str(tmp_path / "web"))
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_checkpoint_is_imported(clone: Clone, tmp_path: Path, web: str) -> None:
    (tmp_path / "web/model.pkl").write_bytes(b"weights")
    pattern = r"`(dvc import-url https://HOST/[^`]*)`"
    clone.must(documented("docs/cluster.md", pattern, {"https://HOST": web}))
    assert (clone.folder / "data/import/model.pkl").read_bytes() == b"weights"
    status = clone.must("git status --short --untracked-files=all").splitlines()
    assert sorted(status) == ["A  data/import/model.pkl.dvc", "M  data/import/.gitignore"]
