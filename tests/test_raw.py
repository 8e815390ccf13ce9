"""Real data at data/raw/<scene> is never replaced by the demo, whatever DVC is told to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.run import layout
from stages.run.embedded_data import MARK, place_embedded_data
from stages.run.errors import UserError
from stages.run.files import folder_hash

ROOT = Path(__file__).resolve().parents[1]
SCENE = "hi4d_pair15_fight"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/demo of a scene, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (layout.demo(SCENE) / "images").mkdir(parents=True)
    (layout.demo(SCENE) / "images" / "a.png").write_text("made")
    return tmp_path


def test_the_demos_own_copy_follows_the_demo(demo: Path) -> None:
    place_embedded_data(layout.embedded(SCENE))
    raw = layout.raw(SCENE)
    assert {path.name for path in raw.iterdir()} == {"images", MARK}
    before = (raw / MARK).stat().st_mtime_ns
    place_embedded_data(layout.embedded(SCENE))
    assert (raw / MARK).stat().st_mtime_ns == before, "nothing is written twice"
    (layout.demo(SCENE) / "images" / "a.png").write_text("made by other params")
    place_embedded_data(layout.embedded(SCENE))
    assert (raw / "images" / "a.png").read_text() == "made by other params"


def test_equal_data_without_a_mark_is_the_demos(demo: Path) -> None:
    shutil.copytree(layout.demo(SCENE), layout.raw(SCENE))
    place_embedded_data(layout.embedded(SCENE))
    assert (layout.raw(SCENE) / MARK).is_file()


@pytest.mark.parametrize(
    "kind", ["folder", "links", "one more", "one changed", "one less", "file", "link"]
)
def test_what_is_not_the_demos_is_left_alone(kind: str, demo: Path) -> None:
    raw = layout.raw(SCENE)
    if kind in ("one more", "one changed", "one less"):
        place_embedded_data(layout.embedded(SCENE))
        # A later run of the demo, so that the copy and its origin differ.
        (layout.demo(SCENE) / "images" / "a.png").write_text("made by other params")
        changed = raw / "images" / ("b.png" if kind == "one more" else "a.png")
        changed.unlink() if kind == "one less" else changed.write_text("mine")
        if kind == "one less":
            (raw / "images" / "mine.png").write_text("mine")
    else:
        raw.parent.mkdir(parents=True)
        (demo / "elsewhere").mkdir()
        (demo / "elsewhere" / "mine.png").write_text("mine")
        if kind == "folder":
            shutil.copytree(demo / "elsewhere", raw)
        elif kind == "links":
            raw.mkdir()
            (raw / "images").symlink_to(demo / "elsewhere")
            (raw / "gone.png").symlink_to(demo / "nowhere")
        elif kind == "file":
            raw.write_text("mine")
        else:
            raw.symlink_to(demo / "elsewhere")
    before = folder_hash(demo / "data" / "raw"), raw.is_symlink()
    with pytest.raises(UserError, match=f"{SCENE}: holds data that the demo did not make"):
        place_embedded_data(layout.embedded(SCENE))
    assert (folder_hash(demo / "data" / "raw"), raw.is_symlink()) == before


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the graph's stages of one demo scene, which have run."""
    yaml = YAML()
    graph, params = yaml.load(ROOT / "dvc.yaml"), yaml.load(ROOT / "params.yaml")
    stages = {name: graph["stages"][name] for name in ("demo", "raw")}
    for name, stage in stages.items():  # the code is not in this repository
        deps = [dep for dep in stage["deps"] if not dep.startswith("data/code/")]
        stage["deps"] = [*deps, f"{name}.txt"]
        (tmp_path / f"{name}.txt").touch()
    for name in graph["vars"]:
        shutil.copyfile(ROOT / name, tmp_path / name)
    yaml.dump({"vars": graph["vars"], "stages": stages}, tmp_path / "dvc.yaml")
    small = {"scenes": [SCENE], "frames": 1, "width_px": 24, "height_px": 32, "samples": 1}
    yaml.dump({"demo": dict(params["demo"]) | small}, tmp_path / "params.yaml")
    (tmp_path / ".gitignore").write_text("/data/\n/.work/\n")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".work" / "site"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for key in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{key}_NAME", "x")
        monkeypatch.setenv(f"{key}_EMAIL", "x@localhost")
    for words in (
        "git init -q",
        "dvc init -q",
        "git add -A",
        "git commit -qm a",
        "dvc repro -q",
        "git add -A",
        "git commit -qm b",
    ):
        assert call(tmp_path, words) == 0, words
    return tmp_path


def call(folder: Path, words: str) -> int:
    return subprocess.run(words.split(), cwd=folder, capture_output=True).returncode


@pytest.mark.slow
def test_dvc_leaves_real_data_alone(repository: Path) -> None:
    raw = repository / layout.raw(SCENE)
    assert (raw / MARK).is_file(), "the demo's data lies where it is sought"
    shutil.rmtree(raw)
    assert call(repository, "dvc repro -q") == 0
    assert (raw / MARK).is_file(), "it comes back"
    shutil.rmtree(raw)
    (raw / "images").mkdir(parents=True)
    (raw / "images" / "mine.png").write_text("the only copy")
    before = folder_hash(raw)
    refused = (
        "repro -q",
        f"repro -q -s raw@{SCENE}",
        "repro -q -f",
        f"repro -q -f -s demo@{SCENE}",
        "exp run -q -S demo.seed=3",
    )
    for words in refused:
        assert call(repository, f"dvc {words}") != 0, words
        assert folder_hash(raw) == before, words
    for words in ("checkout -q -f", f"commit -q -f raw@{SCENE}", "gc -q -w -f"):
        call(repository, f"dvc {words}")
        assert folder_hash(raw) == before, words
