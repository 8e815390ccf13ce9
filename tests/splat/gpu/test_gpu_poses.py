"""Corrected poses in a kernel against the same by torch, forward and backward."""

import torch
from kernel_device import DEVICE

from stages.splat.gpu.poses import Corrected
from stages.splat.poses import corrected


def test_pose_centre_and_gradient() -> None:
    random = torch.Generator().manual_seed(0)
    corrections = (0.3 * torch.randn(5, 9, generator=random)).to(DEVICE).requires_grad_()
    cams_from_world = torch.eye(4).repeat(5, 1, 1)
    cams_from_world[:, :3, :3] = torch.linalg.qr(torch.randn(5, 3, 3, generator=random))[0]
    cams_from_world[:, :3, 3] = torch.randn(5, 3, generator=random)
    cams_from_world = cams_from_world.to(DEVICE)
    weights = torch.randn(1, 4, 4, generator=random).to(DEVICE)
    weights[:, 3] = 0  # the last row is constant
    eye_weights = torch.randn(1, 3, generator=random).to(DEVICE)

    index = torch.tensor([3], device=DEVICE)
    pose, eye = Corrected.apply(corrections, cams_from_world, index)
    ours = torch.autograd.grad((pose * weights).sum() + (eye * eye_weights).sum(), corrections)[0]

    expected = corrected(cams_from_world[3], corrections[3])[None]
    expected_eye = torch.linalg.inv(expected)[:, :3, 3]
    value = (expected * weights).sum() + (expected_eye * eye_weights).sum()
    gradient = torch.autograd.grad(value, corrections)[0]
    assert torch.allclose(pose, expected, atol=1e-6)
    assert torch.allclose(eye, expected_eye, atol=1e-5)
    assert torch.allclose(ours, gradient, atol=1e-5)
    assert gradient[3].abs().min() > 1e-3
    assert not ours[[0, 1, 2, 4]].any()
