"""Exported files in another program's reader: gsply, which reads any PLY and SPZ of Gaussians."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_scene import known_gaussians

from stages.scenes.cameras import rotation_from_quat
from stages.scenes.frames import Sim3
from stages.splat.export import in_world, write_ply
from stages.splat.gaussians import Gaussians
from stages.splat.ply import open_ply
from stages.splat.viewing.spz import write_spz

gsply = pytest.importorskip("gsply")

BACK_FROM_FRONT = Sim3(1.0, np.diag([1.0, -1.0, -1.0]), np.zeros(3))


def axes(quats: np.ndarray) -> np.ndarray:
    """Rotations [N, 3, 3] of quaternions wxyz."""
    return np.stack([rotation_from_quat(quat) for quat in quats])


def harmonics(found: Any, wanted: Gaussians) -> np.ndarray:
    return np.zeros(wanted.shN.shape) if found.shN is None else found.shN.reshape(wanted.shN.shape)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_ply_is_read_with_the_same_numbers(tmp_path: Path, degree: int) -> None:
    frame = Sim3(2.5, np.eye(3), np.array([1.0, -2.0, 0.5]))
    trained = replace(known_gaussians(300, degree), world_from_norm=frame)
    write_ply(tmp_path / "a.ply", trained)
    found, wanted = gsply.plyread(str(tmp_path / "a.ply")), in_world(trained)
    np.testing.assert_array_equal(found.means, wanted.means)
    np.testing.assert_array_equal(found.scales, wanted.log_scales)
    np.testing.assert_array_equal(found.opacities.ravel(), wanted.opacity_logits)
    np.testing.assert_array_equal(found.sh0.reshape(-1, 3), wanted.sh0[:, 0])
    np.testing.assert_array_equal(harmonics(found, wanted), wanted.shN)
    np.testing.assert_allclose(axes(found.quats), axes(wanted.quats.numpy()), atol=1e-5)


@pytest.mark.parametrize("degree", [0, 3])
def test_its_ply_is_read_here(tmp_path: Path, degree: int) -> None:
    wanted = known_gaussians(100, degree)
    write_ply(tmp_path / "a.ply", wanted)
    gsply.plywrite(str(tmp_path / "b.ply"), gsply.plyread(str(tmp_path / "a.ply")))
    found = open_ply(tmp_path / "b.ply").gaussians
    for name in ("means", "log_scales", "opacity_logits", "sh0", "shN"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spz_is_read_within_the_formats_steps(tmp_path: Path, degree: int) -> None:
    """In the format's own axes; ellipsoids may have their axes the other way round."""
    trained = known_gaussians(300, degree)
    write_spz(tmp_path / "a.spz", trained)
    found = gsply.read_spz(str(tmp_path / "a.spz"))
    wanted = in_world(trained.moved(BACK_FROM_FRONT))
    np.testing.assert_allclose(found.means, wanted.means, atol=2**-12)
    np.testing.assert_allclose(found.scales, wanted.log_scales, atol=1 / 31)
    alpha = 1 / (1 + np.exp(-found.opacities.ravel()))
    np.testing.assert_allclose(alpha, torch.sigmoid(wanted.opacity_logits), atol=1 / 255)
    color = np.clip(wanted.sh0[:, 0].numpy(), -0.5 / 0.15, 0.5 / 0.15)
    np.testing.assert_allclose(found.sh0.reshape(-1, 3), color, atol=0.5 / 0.15 / 255 + 1e-4)
    rest = np.clip(wanted.shN.numpy(), -1, 127 / 128)
    steps = np.where(np.arange(rest.shape[1]) < 3, 8, 16)[None, :, None]
    assert (np.abs(harmonics(found, wanted) - rest) <= (steps / 2 + 1) / 128).all()
    cosines = np.abs(np.einsum("nij,nij->nj", axes(found.quats), axes(wanted.quats.numpy())))
    assert cosines.min() > 0.9997


def test_spz_keeps_a_gaussian_beyond_the_usual_range(tmp_path: Path) -> None:
    """With 12 fractional bits, which other writers always take, coordinates end at 2048."""
    trained = known_gaussians(300)
    trained.means[5, 0] = 5000.0
    write_spz(tmp_path / "a.spz", trained)
    found = gsply.read_spz(str(tmp_path / "a.spz"))
    np.testing.assert_allclose(found.means[5, 0], 5000.0, atol=2**-9)
