"""What a batch job's log gets from an entry: whole lines and one exit code a kind of end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from exact_scene import SCENE, write_scene

ROOT = Path(__file__).resolve().parents[1]
PARAMS = "novel_views:\n  backend: cpu\n  align: false\nruntime:\n  novel_views:\n    workers: 1\n"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )


def test_drawing_leaves_no_carriage_return_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    write_scene()
    done = run(tmp_path, "stages.novel_views", "--scene", SCENE)
    assert done.returncode == 0, done.stderr
    assert b"4 views, given" in done.stdout
    assert b"\r" not in done.stdout + done.stderr


@pytest.mark.parametrize("entry", ["prepare", "check", "overlay", "view"])
def test_what_the_user_can_mend_ends_with_2_and_no_traceback(entry: str, tmp_path: Path) -> None:
    words = {"prepare": ["--scene", "s"], "overlay": ["none.yaml"], "view": ["s"]}.get(entry, [])
    done = run(tmp_path, f"stages.{entry}", *words)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"fix: " in done.stderr


def test_unknown_flag_ends_with_2(tmp_path: Path) -> None:
    assert run(tmp_path, "stages.doctor", "--jsn").returncode == 2
