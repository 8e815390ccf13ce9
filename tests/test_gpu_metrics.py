"""benchmarks/gpu_metrics.py and killed_study.py: what is compared, and which stages are killed."""

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu_metrics import TOLERANCE_DB, beyond, differences, means, noise_db, table
from benchmarks.killed_study import kill_each
from stages.run.files import write_json

PROTOCOL = "192x256, 4 views {}, lpips alex 889a9ed0, masks auto"


def measured(folder: Path, scene: str, method: str, psnr: float, digest: str = "42fdda3f") -> None:
    means = {"psnr": psnr, "ssim": 0.5, "lpips": None, "protocol": PROTOCOL.format(digest)}
    path = folder / "scenes" / scene / f"{method}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, means)


def test_methods_are_compared_by_their_means_over_scenes(tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    for scene, more in (("a", 0.09), ("b", 0.03)):
        measured(cpu, scene, "none", 20.0)
        measured(gpu, scene, "none", 20.0 + more)
        measured(cpu, scene, "tuned-post", 21.0)
        measured(gpu, scene, "tuned-post", 21.0 - more, "00000000")
    measured(cpu, "a.seed1", "none", 20.0)
    measured(gpu, "a.seed1", "none", 25.0)
    measured(gpu, "c", "none", 25.0)
    rows = list(differences(gpu, cpu))
    assert [(row.scene, row.method, row.psnr) for row in rows] == [
        ("a", "none", 0.09),
        ("a", "tuned-post", -0.09),
        ("b", "none", 0.03),
        ("b", "tuned-post", -0.03),
    ]
    assert [row.same_views for row in rows] == [True, False, True, False]
    assert means(rows)["none"] == {"psnr": 0.06, "ssim": 0.0, "lpips": None}
    assert beyond(rows, TOLERANCE_DB) == {"none": 0.06, "tuned-post": -0.06}
    assert beyond(rows, 0.1) == {}
    assert "tuned-post" in table(rows)


def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    measured(gpu, "a", "none", 20.0)
    measured(cpu, "a", "none", 20.0)
    path = cpu / "scenes" / "a" / "none.json"
    path.write_text(path.read_text().replace("4 views", "8 views"))
    with pytest.raises(SystemExit, match=r"192x256, 4 views .* not as 192x256, 8"):
        list(differences(gpu, cpu))


def test_the_noise_of_the_committed_study_stands_beside_it(tmp_path: Path) -> None:
    assert noise_db(tmp_path) is None
    write_json(tmp_path / "delta.json", {"noise_floor": None})
    assert noise_db(tmp_path) is None
    write_json(tmp_path / "delta.json", {"noise_floor": {"psnr_least": 0.17}})
    assert noise_db(tmp_path) == 0.17


# Runs a stage that writes resume states; once there was one, the stage ends at once.
STUDY = """
import subprocess, sys, pathlib
state = pathlib.Path(".work/tune/tune/key/state.pt")
stage = (
    "import pathlib, time; path = pathlib.Path('.work/tune/tune/key/state.pt');"
    "resumed = path.exists(); time.sleep(0 if resumed else 0.8);"
    "path.parent.mkdir(parents=True, exist_ok=True); path.touch(); time.sleep(0 if resumed else 60)"
)
sys.exit(abs(subprocess.run([sys.executable, "-c", stage, "-m", "stages.tune"]).returncode))
"""


def test_each_kind_is_killed_once_and_not_before_its_first_state(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STUDY]
    (tmp_path / "clone").mkdir()
    began = time.monotonic()
    (kill,) = kill_each(tmp_path / "clone", words, os.environ, {"tune": 0.1})
    assert kill.stage == "tune"
    assert kill.had_state
    assert 0.7 < kill.after_s < time.monotonic() - began


def test_a_study_that_fails_by_itself_is_no_kill(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    words = ["sh", "-c", f"{shlex.join(['echo', 'no such scene'])}; exit 3"]
    with pytest.raises(SystemExit, match=r"(?s)no such scene.*exit code 3"):
        kill_each(tmp_path / "clone", words, os.environ, {"tune": 0.1})
