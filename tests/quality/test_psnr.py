"""PSNR against torchmetrics and in closed form."""

import math
from collections.abc import Callable

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from stages.quality.metrics.psnr import psnr


def test_equals_torchmetrics_image_by_image(images: Callable) -> None:
    a, b = images(3, seed=1), images(3, seed=2)
    expected = [
        float(peak_signal_noise_ratio(x, y, data_range=1.0)) for x, y in zip(a, b, strict=True)
    ]
    assert psnr(a, b).tolist() == pytest.approx(expected, abs=1e-4)


def test_noise_of_known_size() -> None:
    torch.manual_seed(0)
    clean = torch.full((1, 3, 200, 200), 0.5)
    noisy = clean + 0.02 * torch.randn_like(clean)
    assert float(psnr(clean, noisy)) == pytest.approx(-20 * math.log10(0.02), abs=0.05)


def test_is_symmetric_and_infinite_for_equal_images(images: Callable) -> None:
    a, b = images(seed=1), images(seed=2)
    assert torch.equal(psnr(a, b), psnr(b, a))
    assert psnr(a, a).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 8, 8), "expected \\[B, 3, H, W\\]"), ((1, 8, 8, 3), "expected"), ((1, 1, 8, 8), "expec")],
)
def test_refuses_other_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        psnr(torch.zeros(shape), torch.zeros(shape))


def test_refuses_broadcasting_bytes_and_other_ranges(images: Callable) -> None:
    a = images(2)
    with pytest.raises(ValueError, match="do not pair"):
        psnr(a, a[:1])
    with pytest.raises(ValueError, match="uint8"):
        psnr(a, (a * 255).byte())
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        psnr(a * 255, a)
    with pytest.raises(ValueError, match="nan"):
        psnr(a * float("nan"), a)
