"""Structural similarity (Wang et al. 2004): Gaussian windows of 11 px, sigma 1.5.

`ssim` has a window around every pixel, with reflected borders: equal to torchmetrics' defaults with
`data_range=1`, which gsplat's tables use. `ssim_inside` has only the windows within the image, as
DyCheck, TensorFlow and scikit-image do; so does the training loss. Pixels near the border weigh
less in it, and novel views are mostly worst there: on renders of 4 to 8 held-out views it differed
by -0.003 to +0.017.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.quality.metrics.batch import check_pair

TAPS, SIGMA = 11, 1.5
SMALLEST_PX = TAPS // 2 + 1  # for reflected borders
_C1, _C2 = 0.01**2, 0.03**2


def ssim(a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
    """Mean SSIM, float64. Images are at least 6 px a side."""
    check_pair(a, b, smallest_px=SMALLEST_PX)
    # Variances are differences of near-equal numbers: in float32 smooth images lose four digits.
    a, b = (F.pad(images.double(), (TAPS // 2,) * 4, mode="reflect") for images in (a, b))
    return ssim_of_windows(a, b)


def ssim_inside(a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
    """Mean SSIM over the windows within the images, float64. Images are at least 11 px a side."""
    check_pair(a, b, smallest_px=TAPS)
    return ssim_of_windows(a.double(), b.double())


def ssim_of_windows(a: Tensor, b: Tensor) -> Tensor:  # [B, C, H, W] -> [B]
    """Mean SSIM over windows within the images."""
    taps = gaussian_taps(a)
    products = torch.cat([a, b, a * a, b * b, a * b])
    mean_a, mean_b, aa, bb, ab = correlate(correlate(products, taps, 3), taps, 2).chunk(5)
    var_a, var_b = aa - mean_a.square(), bb - mean_b.square()
    return ssim_map(mean_a, mean_b, var_a, var_b, ab - mean_a * mean_b).mean(dim=(1, 2, 3))


def ssim_map(mean_a: Tensor, mean_b: Tensor, var_a: Tensor, var_b: Tensor, cov: Tensor) -> Tensor:
    """SSIM of each window from its means, variances and covariance."""
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    return luminance * (2 * cov + _C2) / (var_a + var_b + _C2)


def gaussian_taps(like: Tensor) -> Tensor:
    """The normalised window [11] on the device and in the dtype of `like`."""
    offsets = torch.arange(TAPS, device=like.device, dtype=like.dtype) - TAPS // 2
    taps = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return taps / taps.sum()


def correlate(images: Tensor, taps: Tensor, dim: int) -> Tensor:
    """Valid correlation of [B, C, H, W] with taps [K] along dimension 2 or 3."""
    if images.device.type == "cuda":
        return _correlate_by_products(images, taps, dim)
    # Ten times less memory than a convolution, which copies the images once per tap in float64.
    count = images.shape[dim] - len(taps) + 1
    sums = images.narrow(dim, 0, count) * taps[0]
    for offset, tap in enumerate(taps.tolist()[1:], start=1):
        sums.add_(images.narrow(dim, offset, count), alpha=tap)
    return sums


def _correlate_by_products(images: Tensor, taps: Tensor, dim: int) -> Tensor:
    """The same by a band matrix of taps; cuDNN needs 74 ms to blur one float32 image."""
    size, count = images.shape[dim], images.shape[dim] - len(taps) + 1
    band = images.new_zeros(size, count)
    for offset, tap in enumerate(taps):
        band.diagonal(-offset).fill_(tap)
    return images @ band if dim == 3 else band.T @ images
