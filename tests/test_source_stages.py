"""Every layout of raw data through check, prepare, calibrate, train, rendering and evaluation."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from one_scene_study import SCENE, study_params
from raw_layouts import WRITERS, Original
from ruamel.yaml import YAML

from stages import calibrate, evaluate, novel_views, prepare, train
from stages.commands import check
from stages.run import layout
from stages.run.files import folder_hash, read_json, write_json
from stages.scenes.cameras import Camera
from stages.scenes.demo import sequence
from stages.scenes.demo.config import DemoConfig
from stages.scenes.demo.ring import ring
from stages.scenes.poses.calibration import read_calibration

SOURCES, TARGETS = ["4", "16", "40", "52"], ["28"]
CONFIG = DemoConfig(frames=1, first_frame=10, width_px=306, height_px=256, samples=1)
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("source_stages")]


def with_one_lens(width: int, height: int) -> list[Camera]:
    """The demo's cameras, all with the first one's K, as in MVHumanNet."""
    cameras = ring(width, height)
    return [replace(camera, K=cameras[0].K) for camera in cameras]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """A ray-traced sequence in Hi4D's layout."""
    folder = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "ring", with_one_lens)
        sequence.write_sequence("hi4d_pair01_talk", CONFIG, folder)
    return Original.read(folder)


@pytest.fixture(scope="module")
def expected() -> dict[str, object]:
    """What the first source gave, which all others must."""
    return {}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    absent = {"found": False, "from": None, "sha256": None, "reason": "no network"}
    write_json(layout.WEIGHTS / "weights.json", {"alex": absent})
    yield tmp_path
    shutil.rmtree(tmp_path)


def write_params(source: str) -> None:
    entry = {"source": source, "source_cameras": SOURCES, "target_cameras": TARGETS}
    params = study_params(entry)
    params["train"] |= {"backend": "cpu", "max_steps": 40, "eval_steps": [], "save_steps": []}
    params["novel_views"]["align"] = False
    params["evaluate"]["lpips"]["required"] = False
    YAML().dump(params, Path("params.yaml"))


@pytest.mark.parametrize("source", ["hi4d", "demo", *WRITERS])
def test_a_source_passes_every_stage_with_equal_results(
    source: str,
    workspace: Path,
    traced: Original,
    expected: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_params(source)
    raw = layout.raw(SCENE)
    if source in WRITERS:
        WRITERS[source](traced, raw)
    else:
        shutil.copytree(traced.root, raw)
    monkeypatch.setattr(sys, "argv", ["check"])
    check.main()
    assert capsys.readouterr().out.startswith("study v0: 1 scene, methods none")
    for stage in (prepare, calibrate, train, novel_views, evaluate):
        monkeypatch.setattr(sys, "argv", [stage.__name__, "--scene", SCENE])
        stage.main()

    images = folder_hash(layout.scene(SCENE) / "frames" / "000010" / "images")
    masks = folder_hash(layout.scene(SCENE) / "frames" / "000010" / "masks")
    calibration = read_calibration(layout.calibrated(SCENE))
    centres = np.stack([calibration.sources[name].centre for name in SOURCES])
    metrics = read_json(layout.scene_metrics(SCENE, "none"))
    assert metrics["views"] == 1
    assert metrics["psnr"] > 15
    if not expected:
        expected |= {"images": images, "masks": masks, "centres": centres, "psnr": metrics["psnr"]}
    assert (images, masks) == (expected["images"], expected["masks"])
    np.testing.assert_allclose(centres, expected["centres"], atol=1e-4)
    assert metrics["psnr"] == pytest.approx(expected["psnr"], abs=0.3)
