"""benchmarks/full_study.py: which processes count towards a stage, and the sizes that it sets."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks.demo_walltime import prepare
from benchmarks.full_study import (
    ROOT,
    Row,
    Sampler,
    follow,
    settings,
    shared_gpus,
    stage_of,
    table,
)
from stages.graph.pipeline import set_params


def test_a_stage_is_measured_with_its_children():
    burn = "[sum(range(10**6)) for _ in range(60)]"
    # A shell between this process and the stage, as with DVC; the stage's own child burns time.
    child = "import subprocess, sys; subprocess.run([sys.executable, sys.argv[3], sys.argv[4]])"
    stage = [sys.executable, "-c", child, "-m", "stages.train", "-c", burn]
    with Sampler() as sampler:
        subprocess.run(["sh", "-c", f"{shlex.join(stage)}; true"], check=True)
        subprocess.run([sys.executable, "-c", "pass", "-m", "stages.submit"], check=True)
    (row,) = sampler.rows()
    assert (row.stage, row.count) == ("train", 1)
    assert row.cpu_s > 0.3
    assert row.longest_s == row.wall_s > 0.3
    seconds, _ = sampler.between("train", "train")
    assert seconds == pytest.approx(row.wall_s)
    assert "train" in table([row])


def test_commands_are_no_stages():
    assert stage_of(["python", "-m", "stages.evaluate", "--scene", "a"]) == "evaluate"
    assert stage_of(["python", "-m", "stages.repro"]) is None
    assert stage_of(["dvc", "repro"]) is None


@pytest.mark.parametrize(
    ("gpu", "cpu_s", "limit"),
    [([0.9, 0.8], 1.0, "GPU"), ([0.1], 9.5, "host"), ([], 1.0, "waiting, disk")],
)
def test_what_limits_is_what_is_busy(gpu, cpu_s, limit):
    assert Row("train", 1, 10.0, 10.0, cpu_s, 0.0, gpu).limit == limit


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_the_sizes_are_params(tmp_path: Path, scale: float):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    set_params(tmp_path, settings(scale))
    params = YAML(typ="safe").load(tmp_path / "params.yaml")
    demo = params["demo"]
    studied = {params["scenes"][name]["timestamps"] for name in params["study"]["scenes"]}
    assert studied == {0}  # all frames of the demo
    if scale == 1:
        assert (demo["width_px"], demo["height_px"], demo["frames"]) == (940, 1280, 20)
        assert (params["train"]["max_steps"], params["tune"]["steps"]) == (7000, 500)
    else:
        area = demo["width_px"] * demo["height_px"] / (940 * 1280)
        assert area == pytest.approx(scale, rel=0.1)
        assert params["base"]["size"] == "tiny"


def test_a_study_that_is_stopped_has_its_rows():
    stage = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "stages.train"]
    shell = ["sh", "-c", f"{shlex.join(stage)} & wait"]
    with Sampler() as sampler:
        code, why = follow(shell, Path(), os.environ, 0.02)
    assert code
    assert why == "stopped after 0.02 minutes: the rows to there"
    (row,) = sampler.rows()
    seconds, _ = sampler.between("train", "evaluate")
    assert 0.2 < row.wall_s == seconds < 10
    assert Sampler().between("train", "evaluate") == (0.0, None)


def test_a_signal_stops_the_study(request: pytest.FixtureRequest):
    # A shell ignores Ctrl-C for what runs in its background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    code, why = follow(["sleep", "60"], Path(), os.environ, None)
    assert (code, why) == (-signal.SIGTERM, "stopped by a signal: the rows to there")
    assert follow(["false"], Path(), os.environ, None) == (1, "")


def test_a_gpu_is_named_once_for_each_of_its_tasks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert shared_gpus(2, jobs=4) == {"CUDA_VISIBLE_DEVICES": "0,3,0,3"}
    assert shared_gpus(2, jobs=1) == {}
    assert shared_gpus(1, jobs=4) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shared_gpus(2, jobs=4) == {}


def test_a_clone_has_no_results_but_the_folders_that_stages_read(tmp_path: Path):
    prepare(tmp_path / "clone", [])
    metrics = tmp_path / "clone" / "metrics"
    kept = {path.relative_to(metrics).as_posix() for path in metrics.rglob("*") if path.is_file()}
    assert kept == {"captures/.gitkeep", "static/scenes/.gitkeep"}
    assert not (tmp_path / "clone" / "dvc.lock").exists()
    params, clone = (folder / "params.yaml" for folder in (ROOT, tmp_path / "clone"))
    assert params.read_bytes() == clone.read_bytes()  # stages still ask for their GPUs
