"""Stage `prepare` as DVC runs it: one process, params.yaml in, a whole scene or nothing out."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.run.files import folder_hash
from stages.scenes.scene import Scene

ROOT = Path(__file__).resolve().parents[1]
PARAMS = """
scenes:
  hi4d_pair15_fight:
    source: hi4d
    source_cameras:
    - '4'
    - 16
    target_cameras:
    - '28'
    timestamps: 2
prepare:
  height_px: 64
  undistort: true
  masks: true
"""


def prepare(folder: Path, scene: str = "hi4d_pair15_fight") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.prepare", "--scene", scene],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )


@pytest.fixture
def workspace(tmp_path: Path, raw_sequence: Callable[..., Path]) -> Path:
    raw_sequence(tmp_path / "data" / "raw" / "hi4d_pair15_fight", distortion=(-0.1, 0.02, 0, 0, 0))
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def test_a_scene_is_written_and_summed_up_in_one_line(workspace: Path) -> None:
    result = prepare(workspace)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "hi4d_pair15_fight: 2 of 3 shared frames (0 not in every camera), "
        "2 source cameras, 1 target camera, 48x64 px\n"
    )
    scene = Scene.read(workspace / "data" / "scenes" / "hi4d_pair15_fight")
    assert (scene.name, scene.group) == ("hi4d_pair15_fight", "pair15")
    assert scene.timestamps == ["000021", "000023"]
    assert sorted(scene.cameras("source")) == ["16", "4"]
    assert all(view.mask() is not None for view in scene.views())
    assert [path.name for path in (workspace / "data" / "scenes").iterdir()] == [scene.name]


def test_a_failure_leaves_the_earlier_scene_as_it_was(workspace: Path) -> None:
    """The last photograph is broken, so everything before it lay in the scratch folder."""
    assert prepare(workspace).returncode == 0
    scenes = workspace / "data" / "scenes"
    before = folder_hash(scenes)
    broken = workspace / "data/raw/hi4d_pair15_fight/images/28/000023.png"
    broken.write_bytes(broken.read_bytes()[:500])
    result = prepare(workspace)
    assert result.returncode == 2
    assert "images/28/000023.png: not a whole image" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert folder_hash(scenes) == before


@pytest.mark.parametrize(
    ("scene", "says"),
    [
        ("hi4d_pair15_figth", "did you mean hi4d_pair15_fight?"),
        ("../params", "command line: '../params'\nexpected a name: letters, digits"),
    ],
)
def test_an_unknown_scene_is_refused(workspace: Path, scene: str, says: str) -> None:
    result = prepare(workspace, scene)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert not (workspace / "data" / "scenes").exists()


def test_a_name_that_leaves_the_data_folder_is_refused(workspace: Path) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("hi4d_pair15_fight:", "../../outside:"))
    result = prepare(workspace, "../../outside")
    assert result.returncode == 2
    assert "letters, digits" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_raw_data_says_where_it_belongs(workspace: Path) -> None:
    (workspace / "data" / "raw").rename(workspace / "data" / "elsewhere")
    result = prepare(workspace)
    assert result.returncode == 2
    assert "data/raw/hi4d_pair15_fight: no such folder" in result.stderr
    assert "dvc import-url" in result.stderr


def test_help_imports_neither_pycolmap_nor_scipy() -> None:
    code = (
        "import sys; sys.argv = ['prepare', '--help']\n"
        "from stages.prepare import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'pycolmap', 'scipy', 'torch', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
    assert "--scene" in result.stdout
