"""Damaged files of earlier stages: each is read, or told of."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from damage import bytes_of, outcome, text_of, value_of
from small_capture import cameras, gaussians

from stages.scenes.calibration import Calibration, read_calibration, write_calibration
from stages.scenes.frames import Sim3
from stages.scenes.images import write_png
from stages.scenes.novel_views import read_aligned
from stages.scenes.scene import Scene, View, write_scene
from stages.scenes.static.truth import read_truth
from stages.splat.captures import Facts
from stages.splat.gaussians import Gaussians

INPUTS = 60  # of each file


@pytest.fixture
def files(tmp_path: Path) -> dict[Path, Callable[[], object]]:
    """Whole files, each with what reads it."""
    one, two, three = (replace(c, name=n) for n, c in zip("abc", cameras().values(), strict=False))
    scene, calibration = tmp_path / "scene", tmp_path / "calibration"
    views = []
    for camera, role in ((one, "source"), (two, "source"), (three, "target")):
        path = scene / "frames" / "000021" / "images" / f"{camera.name}.png"
        write_png(path, np.zeros((camera.height, camera.width, 3), np.float32))
        views.append(View(camera, "000021", role, path, None))
    write_scene(scene, {"name": "x", "group": "y", "source": "demo"}, views)
    found = Calibration("given", Sim3.identity(), {"a": one, "b": two}, {"c": three})
    write_calibration(
        calibration, found, {"000021": (np.zeros((2, 3)), np.zeros((2, 3), np.uint8))}
    )
    facts = Facts("x", "", {"a": one}, {"b": two}, {"a": "0", "b": "1"}, np.zeros((2, 3)),
                  np.zeros(3), 1)  # fmt: skip
    facts.write(tmp_path)
    truth = json.loads((scene / "scene.json").read_text())["cameras"]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    moves = {"000021": {"c": {"cam_from_world": three.cam_from_world.tolist()}}}
    drawn = {"kinds": ["given", "aligned"], "moves": moves}
    (tmp_path / "novel_views.json").write_text(json.dumps(drawn))
    return {
        scene / "scene.json": partial(Scene.read, scene),
        scene / "split.csv": partial(Scene.read, scene),
        calibration / "calibration.json": partial(read_calibration, calibration),
        tmp_path / "capture.json": partial(Facts.read, tmp_path),
        tmp_path / "truth.json": partial(read_truth, tmp_path / "truth.json"),
        tmp_path / "novel_views.json": partial(read_aligned, tmp_path),
    }


def test_a_damaged_file_is_read_or_told_of(files: dict[Path, Callable[[], object]]) -> None:
    draw = random.Random(0)
    for path, read in files.items():
        whole, seen = path.read_bytes(), Counter()
        assert outcome(read, path.name) == "result"
        for number in range(INPUTS):
            damage = draw.choice([bytes_of, text_of, value_of])
            if damage is value_of and path.suffix == ".json":
                data = json.dumps(value_of(json.loads(whole), draw)).encode()
            else:
                data = draw.choice([bytes_of, text_of])(whole, draw)
            path.write_bytes(data)
            seen[outcome(read, f"{path.name}, input {number}")] += 1
        path.write_bytes(whole)
        assert seen["told"] > INPUTS // 4, path


def test_damaged_gaussians_are_read_or_told_of(tmp_path: Path) -> None:
    path, draw, seen = tmp_path / "gaussians.safetensors", random.Random(0), Counter()
    gaussians().save(path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    for number in range(2 * INPUTS):
        if number % 2:
            data = bytes_of(whole, draw)
        else:
            header = value_of(json.loads(whole[8 : 8 + size]), draw)
            text = json.dumps(header).encode()
            data = len(text).to_bytes(8, "little") + text + whole[8 + size :]
        path.write_bytes(data)
        seen[outcome(partial(Gaussians.load, path), f"input {number}")] += 1
    assert seen["told"] > INPUTS
