"""Poses of a static scene by VGGT, with a stand-in for the network."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from stages.scenes.config import VggtConfig
from stages.splat import vggt
from stages.splat.captures import static_poses
from stages.splat.captures.static_poses import predict_poses

CONFIG = VggtConfig(weights="stand-in", device="cpu", image_px=56)
IMAGES = {
    "mono__wide.png": np.full((30, 40, 3), 0.2, np.float32),
    "eval__1.png": np.full((40, 30, 3), 0.6, np.float32),
}


def stand_in(batch: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cameras in a row, with focal lengths of their images' width."""
    count, side = len(batch), batch.shape[-1]
    poses = np.tile(np.eye(4)[:3], (count, 1, 1))
    poses[:, 0, 3] = np.arange(count)
    K = np.array([[side, 0, side / 2], [0, side, side / 2], [0, 0, 1.0]])
    return poses, np.tile(K, (count, 1, 1))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the package is installed."""
    monkeypatch.setattr(static_poses, "find_spec", lambda name: object())
    monkeypatch.setattr(vggt, "load", lambda config: stand_in)


def test_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(static_poses, "find_spec", lambda name: None)
    assert predict_poses(IMAGES, CONFIG, "") is None
    (message,) = caplog.messages
    assert "poses come from structure from motion" in message
    assert "github.com/facebookresearch/vggt" in message


@pytest.mark.usefixtures("installed")
def test_cameras_have_the_size_of_their_images() -> None:
    cameras = predict_poses(IMAGES, CONFIG, "")
    assert cameras is not None
    wide = cameras["mono__wide.png"]
    assert (wide.width, wide.height) == (40, 30)
    assert wide.K[:2, 2] == pytest.approx([20, 15])
    assert wide.K[0, 0] == pytest.approx(40)
    assert cameras["eval__1.png"].centre == pytest.approx([-1, 0, 0])


@pytest.mark.usefixtures("installed")
def test_cache_serves_the_same_images_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = predict_poses(IMAGES, CONFIG, str(tmp_path / "cache"))
    monkeypatch.setattr(static_poses, "find_spec", lambda name: None)
    again = predict_poses(IMAGES, CONFIG, str(tmp_path / "cache"))
    assert first is not None
    assert again is not None
    for name, camera in first.items():
        assert again[name].cam_from_world == pytest.approx(camera.cam_from_world, abs=1e-12)
        assert pytest.approx(camera.K) == again[name].K
    other = {**IMAGES, "eval__1.png": IMAGES["eval__1.png"] + 0.1}
    assert predict_poses(other, CONFIG, str(tmp_path / "cache")) is None
