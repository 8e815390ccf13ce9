"""Watching a training in the browser: what its files give while it runs, and afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from known_scene import SCENE, TIMES
from ruamel.yaml import YAML
from viewer_client import Client

from stages import watch
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import work_root, write_json
from stages.run.trainings import CAMERAS, Trainings
from stages.run.user_paths import run_name
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.viewing.live_scene import as_cloud
from stages.splat.viewing.viewer import NEWEST, TrainingViewer

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LABELS = {f"train: {SCENE} {time}" for time in TIMES}


def start(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        env=ENV | {"SPLATFIX_WORK": str(work_root())},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def start_training(config: TrainConfig, steps: int) -> subprocess.Popen:
    train = json.loads(config.model_dump_json()) | {
        "max_steps": steps,
        "ply_steps": [],
        "backend": "cpu",
    }
    runtime = {"train": {"workers": 1, "checkpoint_every": 20}}
    with open("params.yaml", "w") as out:
        YAML().dump({"train": train, "runtime": runtime}, out)
    return start("stages.train", "--scene", SCENE)


def kill_after_a_state(training: subprocess.Popen) -> Path:
    """End a training without notice, once it has saved a state; the folder of that."""
    while not (found := list(work_root().glob("train/*/*/progress.json"))):
        assert training.poll() is None, training.communicate()[1]
        time.sleep(0.01)
    training.kill()
    training.communicate()
    return found[0].parent


@pytest.mark.slow
def test_browser_gets_a_training_while_it_runs_and_then_its_result(
    scene: Scene, config: TrainConfig
) -> None:
    """The training, the watcher and its client are three processes that share a folder alone."""
    watcher = start("stages.watch", SCENE, "--wait", "--port", "18190")
    assert watcher.stdout is not None
    address = watcher.stdout.readline()
    port = int(address.rpartition(":")[2])
    training = start_training(config, steps=600)
    try:
        with Client(port, 120) as client:
            client.look_from(next(iter(scene.cameras("source").values())))
            client.wait(lambda: len(client.clouds) > 2)
            assert training.poll() is None, "states are seen while it runs"
            first, second, *_ = client.clouds
            assert first.shape != second.shape or not np.allclose(first, second)
            text = repr(client.messages)
            states = re.findall(r"\*\*([^*]+)\*\*[^*]*step (\d+) of 600, loss 0\.\d+", text)
            # The second timestamp begins where the first has ended.
            steps = {name: [int(step) for one, step in states if one == name] for name, _ in states}
            assert all(sorted(set(one)) == one for one in steps.values()), "they go up"
            assert any(0 < one[0] < one[-1] for one in steps.values())
            assert re.search(r"train \d+\.\d\d dB PSNR at step 40, goes on", text)
            _, errors = training.communicate(timeout=120)
            assert training.returncode == 0, errors
            last = r"step 600 of 600, loss 0\.\d+, train \d+\.\d\d dB PSNR at step 600, finished"
            client.wait(lambda: re.search(last, repr(client.messages[-30:])) is not None)
            results = [
                as_cloud(Gaussians.load(layout.splats(SCENE) / name / "gaussians.safetensors"))
                for name in TIMES
            ]
            finished = [one.centers for one in results]
            assert any(np.allclose(client.clouds[-1], centers, atol=1e-5) for centers in finished)
            assert all(label in repr(client.messages) for label in LABELS)
    finally:
        training.kill()
        watcher.send_signal(signal.SIGTERM)
    _, errors = watcher.communicate(timeout=30)
    assert (watcher.returncode, errors) == (0, "")


@pytest.mark.slow
def test_killed_training_is_shown_as_stopped_and_its_broken_files_are_said(
    scene: Scene, config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    folder = kill_after_a_state(start_training(config, steps=100_000))
    trainings = Trainings(work_root(), SCENE, with_key=CAMERAS)
    viewer = TrainingViewer(trainings, "127.0.0.1", 18290)
    neighbour = TrainingViewer(Trainings(work_root() / "none"), "127.0.0.1", 18290)
    try:
        assert viewer.port != neighbour.port, "a taken port is not refused"
        neighbour.follow()
        assert "nothing is being trained yet" in neighbour.words.content
        viewer.follow()
        assert viewer.choice.options == (NEWEST, f"train: {SCENE} {TIMES[0]}")
        before = viewer.words.content
        assert re.search(r"step \d+ of 100000.*, stopped; the same command goes on", before)
        assert re.search(r"\d+ Gaussians$", before)

        progress, state = folder / "progress.json", folder / "state.pt"
        text, tensors = progress.read_text(), state.read_bytes()
        progress.write_text(text[: len(text) // 2])
        for _ in range(2):
            viewer.follow()
        assert viewer.words.content == before, "what was read stays"
        (said,) = [line for line in caplog.messages if "progress.json" in line]
        assert "not JSON" in said

        value = json.loads(text) | {"step": 77}
        write_json(progress, value)
        state.write_bytes(tensors[:-1000])
        viewer.follow()
        assert "step 77 of" in viewer.words.content
        assert "state.pt" in viewer.words.content
        assert "fix: wait for its next state" in viewer.words.content
        state.write_bytes(tensors)
        viewer.follow()
        assert "fix:" not in viewer.words.content

        write_json(progress, value | {"step": 78, CAMERAS: {"00": {}}})
        viewer.follow()
        assert "no usable" in viewer.words.content
        state.unlink()
        viewer.follow()
        assert "step 78 of 100000" in viewer.words.content
        assert ", ended" in viewer.words.content
    finally:
        viewer.server.stop()
        neighbour.server.stop()


def test_training_is_found_by_scene_and_by_result_folder(tmp_path: Path) -> None:
    result = tmp_path / "results" / "garden" / "combined"
    for stage, item, name in (
        ("train", SCENE, f"{SCENE} 000021"),
        ("distill", f"{SCENE}.tuned-distill", f"{SCENE} 000021"),
        ("captures", run_name(result), run_name(result)),
    ):
        values = {"name": name, "step": 1, "steps": 2, CAMERAS: {}, "curve": [{"step": 1}]}
        write_json(tmp_path / "work" / stage / item / "key" / "progress.json", values)
    write_json(
        tmp_path / "work" / "tune" / "tuned" / "key" / "progress.json",
        {"name": "tune", "step": 1, "steps": 2},
    )

    def labels(what: str, **only: str) -> list[str]:
        trainings = Trainings(tmp_path / "work", what, **only)
        trainings.look()
        return sorted(trainings.known)

    of_scene = [f"distill: {SCENE} 000021 tuned-distill", f"train: {SCENE} 000021"]
    assert labels(SCENE) == of_scene
    assert labels(f"{SCENE} 000021 tuned") == of_scene[:1]
    assert labels(str(result)) == labels("garden") == [f"captures: {run_name(result)}"]
    assert labels("another") == []
    assert "tune: tune" in labels("")
    assert "tune: tune" not in labels("", with_key=CAMERAS)


def test_watching_nothing_and_bad_addresses_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path))

    def refused(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["watch", *words])
        with pytest.raises(UserError) as raised:
            watch.main()
        return str(raised.value)

    assert "no training has saved a state" in refused()
    finished = refused("room")
    assert "a finished scene is shown by `python -m stages.view SCENE`" in finished
    assert "splat viewers open train/point_cloud.ply in its results" in finished
    values = {"name": "room 000021", "step": 1, "steps": 2, CAMERAS: {}}
    write_json(tmp_path / "train" / "room" / "key" / "progress.json", values)
    assert "expected one of train: room 000021" in refused("rom")
    assert "expected 1 to 65535" in refused("room", "--port", "70000")
    assert "no address of this machine" in refused("room", "--host", "nowhere.invalid")
    assert "no address of this machine" in refused("room", "--host", "192.0.2.1")


def test_missing_viser_is_said(tmp_path: Path) -> None:
    """The whole command, in an interpreter where the package cannot be imported."""
    (tmp_path / "viser.py").write_text("raise ModuleNotFoundError('no viser', name='viser')\n")
    done = subprocess.run(
        [sys.executable, "-m", "stages.watch", "--wait"],
        env=ENV | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "SPLATFIX_WORK": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no package viser" in done.stderr
    assert "make setup" in done.stderr
