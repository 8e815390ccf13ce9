"""Corrections of poses are camera-local and rigid; alignment recovers a disturbed camera."""

import numpy as np
import pytest
import torch
from known_scene import ring

from stages.scenes.cameras import rigid, rotation_angle_deg, rotation_from_vector
from stages.splat.poses import align, corrected
from stages.splat.render import align_camera, render


def pose(k: int = 0) -> torch.Tensor:
    return torch.tensor(ring(3)[k].cam_from_world, dtype=torch.float32)


def test_zero_changes_nothing() -> None:
    assert torch.allclose(corrected(pose(), torch.zeros(9)), pose(), atol=1e-7)


def test_translation_is_along_the_axes_of_the_camera() -> None:
    moved = corrected(pose(), torch.tensor([0.1, -0.2, 0.3, 0, 0, 0, 0, 0, 0]))
    in_old_camera = pose() @ torch.linalg.inv(moved)
    assert torch.allclose(in_old_camera[:3, 3], torch.tensor([0.1, -0.2, 0.3]), atol=1e-6)
    assert torch.allclose(moved[:3, :3], pose()[:3, :3], atol=1e-6)


def test_any_correction_is_rigid() -> None:
    torch.manual_seed(0)
    moved = corrected(torch.stack([pose(k) for k in range(3)]), 0.5 * torch.randn(3, 9))
    rotations = moved[:, :3, :3]
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(3), atol=1e-5)
    assert (moved[:, 3] == torch.tensor([0.0, 0, 0, 1])).all()


def test_gradient_at_zero_is_finite_and_reaches_all_nine() -> None:
    correction = torch.zeros(9, requires_grad=True)
    (corrected(pose(), correction) * torch.arange(16.0).view(4, 4)).sum().backward()
    assert torch.isfinite(correction.grad).all()
    assert (correction.grad[:3] != 0).all()
    assert correction.grad[3:].abs().sum() > 0


def test_alignment_recovers_a_disturbed_camera(truth) -> None:
    true = ring(3)[1]
    target = render(truth, true, "cpu").rgb
    error = rigid(rotation_from_vector(np.radians([0.4, -1.0, 0.6])), np.array([0.02, 0.03, -0.02]))
    disturbed = true.moved(error @ true.cam_from_world)
    aligned = align_camera(truth, disturbed, target, "cpu", steps=160, lr=4e-3)
    angle = rotation_angle_deg(aligned.cam_from_world[:3, :3], true.cam_from_world[:3, :3])
    assert angle < 0.02
    assert np.linalg.norm(aligned.centre - true.centre) < 0.001


def test_alignment_ignores_masked_pixels(truth) -> None:
    """Two thirds of the target, masked, are the render of the disturbed camera."""
    true = ring(3)[1]
    error = rigid(rotation_from_vector(np.radians([0.4, -1.0, 0.6])), np.array([0.02, 0.03, -0.02]))
    disturbed = true.moved(error @ true.cam_from_world)
    target, wrong = (render(truth, camera, "cpu").rgb for camera in (true, disturbed))
    mask = torch.ones(target.shape[:2], dtype=torch.bool)
    mask[:, : 2 * target.shape[1] // 3] = False
    target = torch.where(mask[..., None], target, wrong)
    away = []
    for used in (mask, None):
        aligned = align_camera(truth, disturbed, target, "cpu", steps=120, lr=4e-3, mask=used)
        away.append(np.linalg.norm(aligned.centre - true.centre))
    assert away[0] < 0.005
    assert away[1] > 0.02


@pytest.mark.parametrize("steps", [0, 3])
def test_alignment_is_never_worse_than_its_start(truth, steps: int) -> None:
    """The best pose counts, not the last: such a large rate jumps away at once."""
    start, *near = [ring(3)[1].moved(_tilted(ring(3)[1].cam_from_world, at)) for at in (0.1, 0)]
    target = render(truth, near[0], "cpu").rgb
    aligned = align_camera(truth, start, target, "cpu", steps=steps, lr=0.5)
    before, after = (
        float((render(truth, one, "cpu").rgb - target).abs().mean()) for one in (start, aligned)
    )
    assert 0 < after <= before * (1 + 1e-4)


def test_alignment_keeps_the_best_of_all_its_poses() -> None:
    """Along x the render approaches the target, then passes it."""
    xs = []

    def moving(pose: torch.Tensor) -> torch.Tensor:
        xs.append(float(pose[0, 3].detach()))
        return pose[:1, 3:, None].expand(2, 2, 3)

    aligned = align(moving, np.eye(4), torch.full((2, 2, 3), 0.25), steps=5, lr=0.1)
    away = np.abs(np.array(xs) - 0.25)
    assert 0 < away.argmin() < 5
    assert aligned[0, 3] == pytest.approx(xs[away.argmin()], abs=1e-6)


def _tilted(cam_from_world: np.ndarray, degrees: float) -> np.ndarray:
    rotation = rotation_from_vector(np.radians([0.0, degrees, 0.0]))
    return rigid(rotation, np.zeros(3)) @ cam_from_world
