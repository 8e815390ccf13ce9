"""VGGT's poses for a static scene, with a stand-in of its contract."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from stages.scenes.config import VggtConfig
from stages.splat import vggt
from stages.splat.captures import static_poses
from stages.splat.captures.static_poses import predicted

CONFIG = VggtConfig(weights="stand-in", device="cpu", image_px=56)
IMAGES = {
    "mono__wide.png": np.full((30, 40, 3), 0.2, np.float32),
    "eval__1.png": np.full((40, 30, 3), 0.6, np.float32),
}


def stand_in(batch: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cameras in a row, each as wide as its picture."""
    count, side = len(batch), batch.shape[-1]
    poses = np.tile(np.eye(4)[:3], (count, 1, 1))
    poses[:, 0, 3] = np.arange(count)
    K = np.array([[side, 0, side / 2], [0, side, side / 2], [0, 0, 1.0]])
    return poses, np.tile(K, (count, 1, 1))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there."""
    monkeypatch.setattr(static_poses, "find_spec", lambda name: object())
    monkeypatch.setattr(vggt, "load", lambda config: stand_in)


def test_says_how_to_get_it_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(static_poses, "find_spec", lambda name: None)
    assert predicted(IMAGES, CONFIG, "") is None
    said = capsys.readouterr().err
    assert "structure from motion gives the poses" in said
    assert "github.com/facebookresearch/vggt" in said


@pytest.mark.usefixtures("installed")
def test_cameras_are_those_of_the_photographs_own_pixels() -> None:
    found = predicted(IMAGES, CONFIG, "")
    assert found is not None
    wide = found["mono__wide.png"]
    assert (wide.width, wide.height) == (40, 30)
    assert wide.K[:2, 2] == pytest.approx([20, 15])
    assert wide.K[0, 0] == pytest.approx(40)
    assert found["eval__1.png"].centre == pytest.approx([-1, 0, 0])


@pytest.mark.usefixtures("installed")
def test_cache_serves_the_same_photographs_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = predicted(IMAGES, CONFIG, str(tmp_path / "cache"))
    monkeypatch.setattr(static_poses, "find_spec", lambda name: None)
    again = predicted(IMAGES, CONFIG, str(tmp_path / "cache"))
    assert first is not None
    assert again is not None
    for name, camera in first.items():
        assert again[name].cam_from_world == pytest.approx(camera.cam_from_world, abs=1e-12)
        assert pytest.approx(camera.K) == again[name].K
    other = {**IMAGES, "eval__1.png": IMAGES["eval__1.png"] + 0.1}
    assert predicted(other, CONFIG, str(tmp_path / "cache")) is None
