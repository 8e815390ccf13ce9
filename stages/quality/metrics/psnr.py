"""Peak signal-to-noise ratio of images in [0, 1]."""

import torch
from torch import Tensor

from stages.quality.metrics.batch import check_pair

# For equal images, whose PSNR is infinite: JSON has no infinity.
HIGHEST_PSNR_DB = 120.0


def psnr(a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
    """PSNR in dB, float64; infinite for equal images.

    >>> psnr(torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.6)).round().tolist()
    [20.0]
    """
    check_pair(a, b)
    return -10 * torch.log10((a.double() - b.double()).square().mean(dim=(1, 2, 3)))
