"""PSNR, SSIM and LPIPS over a mask, in the form of DyCheck (Gao et al. 2022), core/metrics.

Masks are [B, 1, H, W]; pixels of 1 count, those of 0 do not. Other projects mask differently
(partly covered windows, grey instead of black outside); their values do not compare with these.
"""

import torch
from torch import Tensor

from stages.quality.metrics.batch import check_mask, check_pair
from stages.quality.metrics.lpips import Lpips
from stages.quality.metrics.ssim import TAPS, correlate, gaussian_taps, ssim_map


def mpsnr(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
    """PSNR in dB over the pixels of the mask, float64."""
    check_pair(a, b)
    check_mask(mask, a)
    return -10 * torch.log10(_masked_mean((a.double() - b.double()).square(), mask))


def mssim(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
    """SSIM with partial convolutions (Liu et al. 2018), one axis after the other, float64.

    Only windows within the image count. The mean is over the whole map: a window without a pixel
    of the mask has zero statistics and so counts as 1, as in the original.
    """
    check_pair(a, b, smallest_px=TAPS)
    check_mask(mask, a)
    a, b, mask = a.double(), b.double(), mask.double()
    mean_a, mean_b = _blur(a, mask), _blur(b, mask)
    var_a = (_blur(a * a, mask) - mean_a.square()).clamp(min=0)
    var_b = (_blur(b * b, mask) - mean_b.square()).clamp(min=0)
    cov = _blur(a * b, mask) - mean_a * mean_b
    cov = cov.sign() * torch.minimum(cov.abs(), (var_a * var_b).sqrt())
    return ssim_map(mean_a, mean_b, var_a, var_b, cov).mean(dim=(1, 2, 3))


def mlpips(a: Tensor, b: Tensor, mask: Tensor, lpips: Lpips) -> Tensor:  # [B, 3, H, W] -> [B]
    """Mean of the LPIPS map over the mask, with both images black outside of it; float64."""
    check_pair(a, b)
    check_mask(mask, a)
    return _masked_mean(lpips.map(a * mask, b * mask).double(), mask)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, C, H, W] to [B]."""
    weights = mask.double().expand_as(values)
    return (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3))


def _blur(images: Tensor, mask: Tensor) -> Tensor:
    """Gaussian means over the mask's pixels only; missing pixels take their mean."""
    taps = gaussian_taps(images)
    for dim in (3, 2):
        covered = correlate(mask, torch.ones_like(taps), dim)
        total = correlate(images * mask, taps, dim)
        images = torch.where(covered > 0.5, TAPS * total / covered.clamp(min=1), 0)
        mask = (covered > 0.5).double()
    return images
