"""PLY in the world frame renders the same images; a NaN drops one Gaussian, not all."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import known_gaussians, ring

from stages.run.errors import UserError
from stages.scenes.cameras import rotation_from_vector
from stages.scenes.frames import Sim3
from stages.splat.export import write_ply
from stages.splat.gaussians import Gaussians
from stages.splat.ply import open_ply
from stages.splat.render import render

MOVED = Sim3(2.5, rotation_from_vector([0.4, -1.1, 0.7]), np.array([1.0, -2.0, 0.5]))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_ply_in_world_coordinates_renders_the_same_image(tmp_path: Path, degree: int) -> None:
    trained = replace(known_gaussians(60, degree), world_from_norm=MOVED)
    camera = MOVED.apply_camera(ring(3)[0])
    write_ply(tmp_path / "cloud.ply", trained)
    read = open_ply(tmp_path / "cloud.ply").gaussians
    assert read.antialiased
    assert read.sh_degree == degree
    difference = render(trained, camera, "cpu").rgb - render(read, camera, "cpu").rgb
    assert float(difference.abs().max()) < 1e-3
    assert float(render(read, camera, "cpu").rgb.std()) > 0.05


@pytest.mark.parametrize("antialiased", [True, False])
def test_header_names_antialiasing(tmp_path: Path, antialiased: bool) -> None:
    write_ply(tmp_path / "cloud.ply", replace(known_gaussians(5), antialiased=antialiased))
    head = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header")[0].decode()
    assert ("comment SplatRenderMode: mip" in head.splitlines()) is antialiased


def test_depth_is_in_world_units() -> None:
    trained = known_gaussians(60)
    near = render(trained, ring(1)[0], "cpu")
    moved = replace(trained, world_from_norm=MOVED)
    far = render(moved, MOVED.apply_camera(ring(1)[0]), "cpu")
    covered = near.alpha > 0.5
    assert torch.allclose(far.depth[covered], 2.5 * near.depth[covered], rtol=1e-3)


def in_world(gaussians: Gaussians) -> np.ndarray:
    """Means in the world, float64."""
    return gaussians.world_from_norm.apply(gaussians.means.double().numpy())


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e4])
@pytest.mark.parametrize("away", [0.0, 100.0, 3e3, 5.2e6, 1e7])
def test_ply_keeps_world_coordinates_at_any_distance(
    tmp_path: Path, unit: float, away: float
) -> None:
    """A map's coordinates keep a 10,000th of the spread; others are rounded to float32."""
    frame = Sim3(unit, MOVED.rotation, unit * away * np.array([0.8, 0.1, -0.6]))
    trained = replace(known_gaussians(60), world_from_norm=frame)
    write_ply(tmp_path / "cloud.ply", trained)
    head = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header")[0].decode()
    assert ("comment offset" in head) is (away > 1e3)
    read = open_ply(tmp_path / "cloud.ply").gaussians
    np.testing.assert_allclose(in_world(read), in_world(trained), rtol=0, atol=1e-4 * unit)
    assert all(len(np.unique(column)) == 60 for column in read.means.numpy().T)
    if unit >= 1:  # smaller ones lie before the near plane of the cloud from the file
        camera = frame.apply_camera(ring(3)[0])
        difference = render(trained, camera, "cpu").rgb - render(read, camera, "cpu").rgb
        assert float(difference.abs().max()) < 2e-3


def test_an_offset_is_logged_and_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    frame = Sim3(1.0, np.eye(3), np.array([4e5, 5.2e6, 300.0]))
    write_ply(tmp_path / "cloud.ply", replace(known_gaussians(60), world_from_norm=frame))
    (message,) = caplog.messages
    assert message.startswith(
        "cloud.ply: too far from the origin for float32; x y z are relative to "
    )
    numbers = message.split("relative to ")[1].split()
    assert np.abs(np.array(numbers, float) - [4e5, 5.2e6, 300]).max() < 2
    assert max(map(len, numbers)) < 12


def test_one_nan_drops_one_gaussian(tmp_path: Path) -> None:
    broken = known_gaussians(20)
    broken.opacity_logits[3] = float("nan")
    write_ply(tmp_path / "cloud.ply", broken)
    assert len(open_ply(tmp_path / "cloud.ply").gaussians) == 19


def test_safetensors_round_trip(tmp_path: Path) -> None:
    saved = replace(known_gaussians(20, 2), world_from_norm=MOVED, metadata={"step": 7})
    saved.save(tmp_path / "g.safetensors")
    loaded = Gaussians.load(tmp_path / "g.safetensors")
    assert torch.equal(loaded.shN, saved.shN)
    assert loaded.metadata == {"step": 7}
    assert np.allclose(loaded.world_from_norm.matrix, MOVED.matrix)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_broken_gaussians_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="safetensors"):
        Gaussians.load(path)
    with pytest.raises(UserError, match="no such file"):
        Gaussians.load(tmp_path / "absent.safetensors")
