"""The fused loss against SSIM by convolution in double precision, and its gradient."""

from collections.abc import Iterator

import pytest
import torch
from host_kernels import available
from kernel_device import DEVICE

from stages.quality.metrics.ssim import ssim_of_windows
from stages.splat.gpu.photometric import Photometric
from stages.splat.training.losses import photometric

# Blocks are 32 rows of 128 numbers: several, one that does not fit, and the least there is.
CASES = [(45, 52, 0.2), (19, 94, 0.2), (11, 11, 1.0), (11, 11, 0.0)]


@pytest.fixture(scope="module", autouse=True)
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with available(tmp_path_factory.mktemp("kernels")):
        yield


def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(height)
    image = torch.rand(height, width, 3, generator=random)
    target = (image + 0.2 * torch.randn(image.shape, generator=random)).clamp(0, 1)
    return image.to(DEVICE), target.to(DEVICE)


def expected(image: torch.Tensor, target: torch.Tensor, ssim_lambda: float) -> torch.Tensor:
    """By its definition, in float64."""
    a, b = (x.double().permute(2, 0, 1)[None] for x in (image, target))
    l1 = (a - b).abs().mean()
    return (1 - ssim_lambda) * l1 + ssim_lambda * (1 - ssim_of_windows(a, b)[0])


@pytest.mark.parametrize(("height", "width", "ssim_lambda"), CASES)
def test_value_and_gradient(height: int, width: int, ssim_lambda: float) -> None:
    image, target = pair(height, width)
    image.requires_grad_()
    loss = Photometric.apply(image, target, ssim_lambda)
    (gradient,) = torch.autograd.grad(3 * loss, image)
    exact = expected(image, target, ssim_lambda)
    (exact_gradient,) = torch.autograd.grad(3 * exact, image)
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=2e-6)
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 2e-6


def test_equal_images_have_no_loss_and_no_gradient() -> None:
    image, _ = pair(16, 20)
    image.requires_grad_()
    loss = Photometric.apply(image, image.detach().clone(), 0.2)
    (gradient,) = torch.autograd.grad(loss, image)
    assert abs(float(loss.detach())) < 1e-6
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="torch sees no GPU")
def test_masked_loss_is_that_of_the_cpu() -> None:
    image, target = pair(40, 50)
    mask = torch.rand(40, 50, device=DEVICE) > 0.3
    losses, gradients = [], []
    for device in ("cuda", "cpu"):
        leaf = image.to(device).requires_grad_()
        loss = photometric(leaf, target.to(device), 0.2, mask.to(device))
        losses.append(float(loss.detach()))
        gradients.append(torch.autograd.grad(loss, leaf)[0].cpu())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-4
