"""Calibration that starts from a network's poses."""

from pathlib import Path

import numpy as np
import walls

from stages.scenes.cameras import Camera, rigid, rotation_from_vector
from stages.scenes.config import CalibrateConfig
from stages.scenes.images import Pixels
from stages.scenes.poses.scene_calibration import calibrate
from stages.scenes.scene import Scene, write_scene
from stages.scenes.view import View


def test_predicted_poses_are_refined_by_bundle_adjustment(tmp_path: Path) -> None:
    images, truth = tmp_path / "frames/000000/images", walls.cameras()
    walls.write_photographs(images, truth)
    placed = {
        Path(name).stem: Camera(Path(name).stem, c.K, c.cam_from_world, c.width, c.height)
        for name, c in truth.items()
    }
    views = [
        View(
            one,
            images / f"{name}.png",
            timestamp="000000",
            role="target" if name == "02" else "source",
        )
        for name, one in placed.items()
    ]
    write_scene(tmp_path, {"name": "corner", "group": "corner"}, views)
    rng, asked = np.random.default_rng(5), []

    def predict(shots: dict[str, Pixels]) -> dict[str, Camera]:
        asked.extend(shots)
        predicted = {}
        for name in shots:
            rotation = rotation_from_vector(np.radians(0.4) * rng.standard_normal(3))
            shift = rigid(rotation, 0.02 * rng.standard_normal(3))
            predicted[name] = placed[name].moved(shift @ placed[name].cam_from_world)
        return predicted

    config = CalibrateConfig(method="vggt", refine_focal=False, max_epipolar_error_px=8)
    metrics = calibrate(Scene.read(tmp_path), config, tmp_path / "out", predict)
    assert sorted(asked) == ["00", "01", "03", "04"], "no target camera is shown to the network"
    assert metrics["refined"]
    assert metrics["rotation_error_deg"] < 0.1
    assert metrics["centre_error_m"] < 0.02
