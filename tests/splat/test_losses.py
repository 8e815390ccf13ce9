"""The training loss: the fast SSIM against the plain one and against torchmetrics."""

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from stages.quality.metrics.ssim import ssim_of_windows
from stages.splat.training.losses import mean_ssim, photometric


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (37, 52), mode="bicubic")[0]
    return smooth.clamp(0, 1), (smooth + 0.1 * torch.randn(3, 37, 52)).clamp(0, 1)


def test_ssim_equals_torchmetrics_inside_the_borders(pair) -> None:
    a, b = pair
    _, whole = structural_similarity_index_measure(
        a[None], b[None], data_range=1.0, return_full_image=True
    )
    inside = whole[..., 5:-5, 5:-5].mean()
    assert float(mean_ssim(a, b)) == pytest.approx(float(inside), abs=1e-5)


def test_fast_gradient_equals_autograd_through_convolutions(pair) -> None:
    a, b = pair
    fast = a.clone().requires_grad_()
    mean_ssim(fast, b).backward()
    slow = a.double().clone().requires_grad_()
    ssim_of_windows(slow[None], b.double()[None]).sum().backward()
    assert torch.allclose(fast.grad.double(), slow.grad, atol=2e-5 * float(slow.grad.abs().max()))


def test_loss_mixes_l1_and_ssim(pair) -> None:
    a, b = (image.permute(1, 2, 0) for image in pair)
    l1 = (a - b).abs().mean()
    similarity = mean_ssim(*pair)
    assert float(photometric(a, b, 0.2)) == pytest.approx(float(0.8 * l1 + 0.2 * (1 - similarity)))
    assert float(photometric(a, a, 0.2)) == pytest.approx(0, abs=1e-6)


def test_masked_pixels_neither_count_nor_get_a_gradient(pair) -> None:
    a, b = (image.permute(1, 2, 0) for image in pair)
    mask = torch.zeros(a.shape[:2], dtype=torch.bool)
    mask[:, :26] = True
    image = a.clone().requires_grad_()
    photometric(image, b, 0.2, mask).backward()
    assert (image.grad[:, 26:] == 0).all()
    other = torch.where(mask[..., None], a, torch.rand_like(a))
    assert float(photometric(other, b, 0.2, mask)) == pytest.approx(
        float(photometric(a, b, 0.2, mask))
    )
    only_l1 = photometric(a, b, 0.0, mask)
    assert float(only_l1) == pytest.approx(float((a - b)[:, :26].abs().mean()), rel=1e-5)


@pytest.mark.parametrize("ssim_lambda", [0.0, 0.2, 1.0])
def test_a_mask_weighs_what_is_left_as_if_it_were_all(pair, ssim_lambda: float) -> None:
    """Where images differ in a quarter alone, masking the rest counts that quarter fourfold."""
    a, b = (one.permute(1, 2, 0) for one in pair)
    mask = torch.zeros(a.shape[:2], dtype=torch.bool)
    mask[:, :13] = True
    a = torch.where(mask[..., None], a, b)
    whole = float(photometric(a, b, ssim_lambda))
    assert float(photometric(a, b, ssim_lambda, mask)) == pytest.approx(4 * whole, rel=1e-4)
