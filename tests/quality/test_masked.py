"""Masked metrics in DyCheck's form, against direct sums over windows and pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.quality.metrics.lpips import Lpips
from stages.quality.metrics.masked import mlpips, mpsnr, mssim
from stages.quality.metrics.psnr import psnr
from stages.quality.metrics.ssim import ssim_inside


def half_mask(images: Tensor) -> Tensor:
    mask = torch.zeros(len(images), 1, *images.shape[-2:])
    mask[..., :, : images.shape[-1] // 2] = 1
    return mask


def partial_rows(image: np.ndarray, mask: np.ndarray, taps: np.ndarray) -> tuple:
    """One partial convolution along the last axis, a window at a time."""
    height, width = mask.shape
    values = np.zeros((height, width - 10))
    covered = np.zeros((height, width - 10))
    for row in range(height):
        for column in range(width - 10):
            window = mask[row, column : column + 11]
            if window.sum():
                weighted = (taps * window * image[row, column : column + 11]).sum()
                values[row, column] = 11 * weighted / window.sum()
                covered[row, column] = 1
    return values, covered


def direct_mssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """DyCheck's mSSIM of one channel [H, W], written as loops."""
    taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    taps /= taps.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        rows, covered = partial_rows(image, mask, taps)
        return partial_rows(rows.T, covered.T, taps)[0].T

    m_a, m_b = blur(a), blur(b)
    v_a, v_b = (np.maximum(blur(x * x) - m * m, 0) for x, m in ((a, m_a), (b, m_b)))
    cov = blur(a * b) - m_a * m_b
    cov = np.sign(cov) * np.minimum(np.sqrt(v_a * v_b), np.abs(cov))
    above = (2 * m_a * m_b + 1e-4) * (2 * cov + 9e-4)
    return (above / ((m_a**2 + m_b**2 + 1e-4) * (v_a + v_b + 9e-4))).mean()


def test_mpsnr_counts_the_mask_alone(images: Callable) -> None:
    a, b = images(seed=1), images(seed=2)
    mask = half_mask(a)
    outside = torch.where(mask.bool(), b, 1 - b)
    assert torch.equal(mpsnr(a, b, mask), mpsnr(a, outside, mask))
    assert mpsnr(a, b, mask).tolist() == pytest.approx(psnr(a[..., :24], b[..., :24]).tolist())


def test_mpsnr_equals_sums_over_pixels_of_an_irregular_mask(images: Callable) -> None:
    a, b = images(1, 30, 26, seed=3).double(), images(1, 30, 26, seed=4).double()
    mask = (torch.rand(1, 1, 30, 26, generator=torch.Generator().manual_seed(5)) > 0.6).float()
    total, count = 0.0, 0
    for row, column in np.argwhere(mask[0, 0].numpy() == 1):
        for channel in range(3):
            total += float(a[0, channel, row, column] - b[0, channel, row, column]) ** 2
            count += 1
    assert 0 < count < 3 * 30 * 26
    assert float(mpsnr(a, b, mask)) == pytest.approx(-10 * np.log10(total / count), abs=1e-10)


def test_metrics_under_a_full_mask_are_the_plain_ones(images: Callable) -> None:
    a, b = images(1, seed=1), images(1, seed=2)
    full = torch.ones(1, 1, *a.shape[-2:])
    assert mpsnr(a, b, full).tolist() == pytest.approx(psnr(a, b).tolist())
    plain = [
        direct_mssim(x, y, np.ones(x.shape))
        for x, y in zip(a[0].numpy(), b[0].numpy(), strict=True)
    ]
    assert float(mssim(a, b, full)) == pytest.approx(float(np.mean(plain)), abs=1e-6)
    assert float(ssim_inside(a, b)) == pytest.approx(float(np.mean(plain)), abs=1e-6)


def test_mssim_equals_direct_sums_over_an_irregular_mask(images: Callable) -> None:
    a, b = images(1, 30, 26, seed=3).double(), images(1, 30, 26, seed=4).double()
    mask = (torch.rand(1, 1, 30, 26, generator=torch.Generator().manual_seed(5)) > 0.6).float()
    mask[..., :14] = 0
    pairs = zip(a[0].numpy(), b[0].numpy(), strict=True)
    expected = [direct_mssim(x, y, mask[0, 0].numpy()) for x, y in pairs]
    assert float(mssim(a, b, mask)) == pytest.approx(float(np.mean(expected)), abs=1e-12)


def test_mssim_counts_windows_without_a_pixel_as_one(images: Callable) -> None:
    a, b = images(1, 60, 60, seed=1), images(1, 60, 60, seed=2)
    mask = torch.zeros(1, 1, 60, 60)
    mask[..., 5, 5] = 1
    assert float(mssim(a, b, mask)) > 0.95


def test_mssim_ignores_what_the_mask_hides(images: Callable) -> None:
    a, b = images(seed=1), images(seed=2)
    mask = half_mask(a)
    outside = torch.where(mask.bool(), b, 1 - b)
    assert mssim(a, b, mask).tolist() == pytest.approx(mssim(a, outside, mask).tolist(), abs=1e-12)


def test_mlpips_blackens_the_outside_and_averages_the_inside(
    random_backbone: Callable[[str], Path], images: Callable
) -> None:
    lpips = Lpips(random_backbone("alex"), "alex")
    a, b = images(1, 64, 64, seed=1), images(1, 64, 64, seed=2)
    mask = half_mask(a)
    black = torch.where(mask.bool(), a, 0), torch.where(mask.bool(), b, 0)
    expected = float(lpips.map(*black)[..., :32].mean())
    assert float(mlpips(a, b, mask, lpips)) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(float(lpips.map(a, b)[..., :32].mean()), rel=1e-3)


def test_refuses_masks_that_fit_no_image(images: Callable) -> None:
    a = images(2)
    with pytest.raises(ValueError, match="expected \\(2, 1, 40, 48\\)"):
        mpsnr(a, a, torch.ones(2, 40, 48))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        mpsnr(a, a, torch.full((2, 1, 40, 48), 255.0))
    empty = half_mask(a)
    empty[1] = 0
    with pytest.raises(ValueError, match="image 1 is empty"):
        mssim(a, a, empty)
