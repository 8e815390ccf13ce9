"""Stage `novel_views` with real Gaussians, cameras and images, at a small size."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exact_scene import SCENE, TIMES, calibrate, write_scene

from stages.novel_views import main
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json
from stages.scenes.images import read_image
from stages.scenes.scene import Scene
from stages.scenes.view import View

PARAMS = """
novel_views:
  backend: cpu
  align: {align}
  align_steps: 40
  align_lr: 0.002
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the scene."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["novel_views", "--scene", SCENE])
    Path("params.yaml").write_text(PARAMS.format(align="false"))
    write_scene()
    return tmp_path


def error_of(kind: str, view: View) -> float:
    """Largest difference between a novel view and its ground truth, in 8-bit levels."""
    path = layout.novel_views(SCENE, "none") / kind / view.timestamp / f"{view.name}.png"
    return float(255 * np.abs(read_image(path) - view.pixels()).max())


def test_targets_are_rendered_in_the_estimated_frame(workspace: Path) -> None:
    main()
    views = Scene.read(layout.scene(SCENE)).views("target")
    assert len(views) == 4
    # One level: float32 poses on either side of a rounding.
    assert max(error_of("given", view) for view in views) <= 1
    info = read_json(layout.novel_views(SCENE, "none") / "novel_views.json")
    assert info == {"scene": SCENE, "method": "none", "views": 4, "kinds": ["given"]}
    assert not (layout.novel_views(SCENE, "none") / "aligned").exists()


@pytest.mark.slow  # compiles the backward pass
def test_alignment_removes_a_pose_error(workspace: Path) -> None:
    Path("params.yaml").write_text(PARAMS.format(align="true"))
    calibrate({"28": 0.01})
    main()
    info = read_json(layout.novel_views(SCENE, "none") / "novel_views.json")
    assert info["kinds"] == ["given", "aligned"]
    assert "the photograph decides the pose and no pixel" in info["note"]
    for view in Scene.read(layout.scene(SCENE)).views("target"):
        move = info["moves"][view.timestamp][view.name]
        if view.name == "28":
            assert error_of("given", view) > 25
            assert error_of("aligned", view) < 0.4 * error_of("given", view)
            assert move["rotation_deg"] == pytest.approx(np.degrees(0.01), rel=0.25)
        else:
            assert error_of("aligned", view) <= 2
            assert move["rotation_deg"] < 0.1


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(workspace: Path) -> None:
    Path("params.yaml").write_text(PARAMS.format(align="true"))
    main()
    first = folder_hash(layout.novel_views(SCENE, "none"))
    main()
    assert folder_hash(layout.novel_views(SCENE, "none")) == first


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda: (layout.splats(SCENE) / TIMES[1] / "gaussians.safetensors").unlink(), "no such"),
        (lambda: (layout.calibrated(SCENE) / "calibration.json").unlink(), "no such file"),
    ],
    ids=["Gaussians", "calibration"],
)
def test_missing_input_leaves_nothing(
    workspace: Path, breaks: Callable[[], None], message: str
) -> None:
    breaks()
    with pytest.raises(UserError, match=message):
        main()
    assert not layout.novel_views(SCENE, "none").exists()


def test_target_without_calibration_is_named(workspace: Path) -> None:
    path = layout.calibrated(SCENE) / "calibration.json"
    info = read_json(path)
    del info["targets"]["64"]
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match="no target camera 64"):
        main()
