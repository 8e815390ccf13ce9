"""The embedded static scene: fields of view, and photographs that fit their cameras."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import Camera
from stages.scenes.demo import devices
from stages.scenes.demo.static_scene import write_static_scene
from stages.scenes.images import read_image
from stages.scenes.scene import camera_from_dict
from stages.scenes.static.config import StaticDemoConfig
from stages.scenes.static.input_images import list_input_images

SIZE = (256, 192)
CONFIG = StaticDemoConfig(width_px=64, height_px=48, lightfield_side=3, eval_frames=2, samples=1)


def field_deg(camera: Camera) -> float:
    """Horizontal field of view."""
    return float(2 * np.degrees(np.arctan(camera.width / 2 / camera.K[0, 0])))


def test_fields_of_view_are_those_of_real_devices() -> None:
    phone = devices.phone(*SIZE)
    assert field_deg(phone["wide"]) == pytest.approx(67, abs=2)  # 26 mm, 4:3
    assert field_deg(phone["ultrawide"]) == pytest.approx(106, abs=2)  # 13 mm
    assert field_deg(phone["tele"]) == pytest.approx(37, abs=2)  # 52 mm
    assert field_deg(devices.walk(3, *SIZE)["frame_00001"]) == field_deg(phone["wide"])
    pair = devices.stereo(*SIZE)
    baseline = np.linalg.norm(pair["left"].centre - pair["right"].centre)
    assert baseline == pytest.approx(0.12)


def test_light_field_is_a_small_grid_focused_on_a_distance() -> None:
    views = devices.lightfield(5, *SIZE)
    centres = np.stack([view.centre for view in views.values()])
    width = np.linalg.norm(centres - centres[0], axis=1).max() / np.sqrt(2)
    assert width == pytest.approx(4 * 0.012)
    middle = views[2, 2]
    focused = middle.centre + 3.2 * middle.cam_from_world[2, :3]
    pixels = np.concatenate([view.project(focused[None])[0] for view in views.values()])
    assert np.ptp(pixels, axis=0) == pytest.approx(0, abs=1e-6)
    near = middle.centre + 1.5 * middle.cam_from_world[2, :3]
    columns = [views[2, c].project(near[None])[0][0, 0] for c in range(5)]
    assert np.all(np.diff(columns) < 0), "near points move against the camera"


def test_images_truth_and_bytes(tmp_path: Path) -> None:
    count = write_static_scene("static_pair02_talk", CONFIG, tmp_path / "a")
    write_static_scene("static_pair02_talk", CONFIG, tmp_path / "b")
    root = tmp_path / "a" / "static"
    photos = list_input_images(root, ("monocular", "iphone", "stereo", "iphone_eval"))
    truth = json.loads((root / "truth.json").read_text())
    views = sorted((root / "lightfield" / "viewpoints_3px").glob("*.png"))
    assert {photo.name for photo in photos} | {f"lf__{v.name}" for v in views} == set(truth)
    assert count == len(truth) == 1 + 3 + 2 + 2 + 9
    for photo in photos:
        camera = camera_from_dict(photo.name, truth[photo.name])
        assert (camera.width, camera.height) == photo.size
        if photo.subset == "stereo":
            assert photo.focal_px is None
        else:
            assert photo.focal_px == pytest.approx(camera.K[0, 0], rel=1e-3)
    for path in root.rglob("*.png"):
        same = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == same.read_bytes()
    mono, wide = (root / name for name in ("monocular/wide.png", "iphone/wide.png"))
    assert mono.read_bytes() == wide.read_bytes()
    left, right = (read_image(root / "stereo" / f"{side}.png") for side in ("left", "right"))
    assert left.std() > 0.1
    assert np.abs(left - right).mean() > 0.01


def test_refuses_other_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"static_demo\.scenes"):
        write_static_scene("dog", CONFIG, tmp_path)
