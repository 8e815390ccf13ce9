"""SSIM against torchmetrics, whose window, borders and mean gsplat's evaluation uses.

The windows within the image alone, as DyCheck has them, against scikit-image.
"""

from collections.abc import Callable

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from stages.quality.metrics.ssim import (
    TAPS,
    _correlate_by_products,
    correlate,
    gaussian_taps,
    ssim,
    ssim_inside,
    ssim_of_windows,
)


def reference(a: Tensor, b: Tensor) -> list[float]:
    return structural_similarity_index_measure(a, b, data_range=1.0, reduction="none").tolist()


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (11, 11), (6, 20)])
def test_equals_torchmetrics(images: Callable, size: tuple[int, int]) -> None:
    a, b = images(3, *size, seed=1).double(), images(3, *size, seed=2).double()
    assert ssim(a, b).tolist() == pytest.approx(reference(a, b), abs=1e-9)


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (11, 20)])
def test_windows_inside_equal_scikit_image(images: Callable, size: tuple[int, int]) -> None:
    a, b = images(2, *size, seed=1).double(), images(2, *size, seed=2).double()
    expected = [
        structural_similarity(
            *(image.numpy() for image in pair),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in zip(a, b, strict=True)
    ]
    assert ssim_inside(a, b).tolist() == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="at least 11"):
        ssim_inside(a[..., :10], b[..., :10])


def test_a_fault_at_the_border_weighs_less_inside(images: Callable) -> None:
    """Why DyCheck's SSIM of a novel view is mostly higher than gsplat's."""
    a = images(1, 48, 48)
    b = a.clone()
    b[..., :3, :] = 1 - b[..., :3, :]
    assert float(ssim_inside(a, b)) > float(ssim(a, b)) + 0.02
    c = a.clone()
    c[..., 22:25, :] = 1 - c[..., 22:25, :]
    assert float(ssim_inside(a, c)) < float(ssim(a, c)) - 0.02


def test_is_not_disturbed_by_single_precision(images: Callable) -> None:
    a, b = images(1, seed=3), images(1, seed=4)
    assert float(ssim(a, b)) == pytest.approx(float(ssim(a.double(), b.double())), abs=1e-12)
    bright = torch.full((1, 3, 32, 32), 0.999)
    assert float(ssim(bright, bright)) == pytest.approx(1.0, abs=1e-12)


def test_border_counts(images: Callable) -> None:
    """A fault in the outermost pixels lowers the mean: windows there are part of the map."""
    a = images(1, 32, 32)
    b = a.clone()
    b[..., 0, :] = 1 - b[..., 0, :]
    assert float(ssim(a, b)) < 0.97


def test_constant_images_have_a_closed_form() -> None:
    a, b = torch.full((1, 3, 16, 16), 0.25), torch.full((1, 3, 16, 16), 0.5)
    expected = (2 * 0.25 * 0.5 + 1e-4) / (0.25**2 + 0.5**2 + 1e-4)
    assert float(ssim(a, b)) == pytest.approx(expected, abs=1e-9)


def test_identity_and_symmetry(images: Callable) -> None:
    a, b = images(seed=1), images(seed=2)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)
    assert ssim(a, b).tolist() == pytest.approx(ssim(b, a).tolist(), abs=1e-12)


def test_refuses_images_that_cannot_be_reflected() -> None:
    with pytest.raises(ValueError, match="20x5 px; at least 6"):
        ssim(torch.zeros(1, 3, 5, 20), torch.zeros(1, 3, 5, 20))


def test_windows_inside_are_those_of_the_borders_left_out(images: Callable) -> None:
    """What training uses: reflecting the borders first gives the evaluation's mean."""
    a, b = images(2, seed=1).double(), images(2, seed=2).double()
    padded = [torch.nn.functional.pad(x, (TAPS // 2,) * 4, mode="reflect") for x in (a, b)]
    assert torch.equal(ssim_of_windows(*padded), ssim(a, b))
    assert (ssim_of_windows(a, b) - ssim(a, b)).abs().min() > 1e-5


@pytest.mark.parametrize("dim", [2, 3])
def test_blur_by_products_is_the_blur(images: Callable, dim: int) -> None:
    """What a GPU does instead of convolving; gradients too, since training falls back on it."""
    found = []
    for blur in (correlate, _correlate_by_products):
        leaf = images(2, 20, 33, seed=1).double().requires_grad_()
        blurred = blur(leaf, gaussian_taps(leaf), dim)
        found.append((blurred.detach(), torch.autograd.grad(blurred.square().sum(), leaf)[0]))
    for wanted, got in zip(*found, strict=True):
        assert torch.allclose(wanted, got, atol=1e-12)
