"""Stage `novel_views` with real Gaussians, cameras and pictures, at a small size."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.novel_views import main
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json
from stages.scenes.calibration import Calibration, carry_targets, write_calibration
from stages.scenes.cameras import Camera, look_at, rigid, rotation_from_vector
from stages.scenes.frames import Sim3
from stages.scenes.images import read_image, write_png
from stages.scenes.scene import Scene, View, camera_to_dict, write_split
from stages.splat.gaussians import Gaussians
from stages.splat.render import render

SCENE = "hi4d_pair15_fight"
TIMES = ("000021", "000033")
SIZE = 48  # px
# The estimated frame lies turned, shifted and twice as large.
EST_FROM_TRUE = Sim3(2.0, rotation_from_vector([0.2, 0.5, -0.1]), np.array([1.0, -2.0, 0.5]))
PARAMS = """
novel_views:
  backend: cpu
  align: {align}
  align_steps: 40
  align_lr: 0.002
"""


def camera(name: str, angle: float) -> Camera:
    K = np.array([[1.2 * SIZE, 0, SIZE / 2], [0, 1.2 * SIZE, SIZE / 2], [0, 0, 1]])
    eye = [4 * np.sin(angle), -0.8, -4 * np.cos(angle)]
    return Camera(name, K, look_at(eye, [0, 0, 0], [0, -1, 0]), SIZE, SIZE)


SOURCES = {name: camera(name, angle) for name, angle in (("4", -0.6), ("16", 0.0), ("40", 0.6))}
TARGETS = {name: camera(name, angle) for name, angle in (("28", -0.3), ("64", 0.3))}


def gaussians(time: str) -> Gaussians:
    """Coloured blobs in the true frame, known to the estimated one through `world_from_norm`."""
    random = torch.Generator().manual_seed(int(time))
    count = 120
    return Gaussians(
        means=0.6 * torch.randn(count, 3, generator=random),
        quats=torch.randn(count, 4, generator=random),
        log_scales=torch.full((count, 3), -2.0),
        opacity_logits=torch.full((count,), 2.0),
        sh0=torch.randn(count, 1, 3, generator=random),
        shN=torch.zeros(count, 0, 3),
        world_from_norm=EST_FROM_TRUE,
        antialiased=False,
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scene whose photographs are exact renders of its Gaussians by its true cameras."""
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "none")
    Path("params.yaml").write_text(PARAMS.format(align="false"))
    folder, views = layout.scene(SCENE), []
    for time in TIMES:
        truth = gaussians(time)
        truth.save(layout.splats(SCENE) / time / "gaussians.safetensors")
        for role, group in (("source", SOURCES), ("target", TARGETS)):
            for name, one in group.items():
                path = folder / "frames" / time / "images" / f"{name}.png"
                picture = render(truth, EST_FROM_TRUE.apply_camera(one), "cpu").rgb
                write_png(path, picture.numpy())
                views.append(View(one, time, role, path, None))
    write_split(folder / "split.csv", views, folder)
    cameras = {name: camera_to_dict(one) for name, one in (SOURCES | TARGETS).items()}
    info = {"name": SCENE, "group": "pair15", "cameras": cameras}
    (folder / "scene.json").write_text(json.dumps(info))
    calibrate({})
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(sys, "argv", ["novel_views", "--scene", SCENE, "--method", method])


def calibrate(turns: dict[str, float]) -> None:
    """Write the calibration; `turns` rotates estimated targets by so many radians."""
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    found, _ = carry_targets("given", estimated, SOURCES, TARGETS)
    targets = dict(found.targets)
    for name, turn in turns.items():
        error = rigid(rotation_from_vector([0, turn, 0]), np.zeros(3))
        targets[name] = targets[name].moved(error @ targets[name].cam_from_world)
    moved = Calibration("given", found.est_from_true, found.sources, targets)
    write_calibration(layout.calibrated(SCENE), moved, {})


def error_of(kind: str, view: View) -> float:
    """Largest difference between a picture and its photograph, levels of 8 bits."""
    picture = layout.novel_views(SCENE, "none") / kind / view.timestamp / f"{view.name}.png"
    return float(255 * np.abs(read_image(picture) - view.image()).max())


def test_targets_are_drawn_from_the_estimated_frame(workspace: Path) -> None:
    main()
    views = Scene.read(layout.scene(SCENE)).views("target")
    assert len(views) == 4
    # One level: float32 poses on either side of a rounding.
    assert max(error_of("given", view) for view in views) <= 1
    info = read_json(layout.novel_views(SCENE, "none") / "novel_views.json")
    assert info == {"scene": SCENE, "method": "none", "views": 4, "kinds": ["given"]}
    assert not (layout.novel_views(SCENE, "none") / "aligned").exists()


@pytest.mark.slow  # compiles the backward pass
def test_alignment_takes_a_pose_error_out(workspace: Path) -> None:
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


@pytest.mark.parametrize("method", ["nine", "base-postt", "../none"])
def test_unknown_method_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    call(monkeypatch, method)
    with pytest.raises(UserError, match="expected one of none"):
        main()
    assert not Path("data/novel_views").exists()


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
