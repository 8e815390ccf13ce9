"""The training loss: L1 and structural dissimilarity of one image, and regularisers."""

from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor

from stages.quality.metrics.ssim import TAPS, ssim_of_windows
from stages.splat.config import TrainConfig

# Triton comes with torch builds for CUDA on Linux only.
FUSED = find_spec("triton") is not None


def photometric(
    image: Tensor,  # [H, W, 3]
    target: Tensor,  # [H, W, 3]
    ssim_lambda: float,
    mask: Tensor | None = None,  # [H, W] bool; pixels to count
) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM), as 3D Gaussian Splatting trains (Kerbl et al. 2023).

    Pixels outside the mask take the target's value, so that they neither count nor give SSIM an
    edge; L1 is the mean over the pixels that count.
    """
    share: float | Tensor = 1.0
    if mask is not None:
        image = torch.where(mask[..., None], image, target)
        share = mask.float().mean().clamp(min=1e-6)  # stays on the device: the host does not wait
    large = min(image.shape[:2]) >= TAPS
    if large and image.device.type == "cuda" and image.dtype == torch.float32:
        from stages.splat.gpu.compiled import failure
        from stages.splat.gpu.photometric import Photometric

        if failure() is None:
            return Photometric.apply(image, target, ssim_lambda) / share
    l1 = (image - target).abs().mean() / share
    if ssim_lambda == 0 or not large:
        return l1
    similarity = mean_ssim(image.permute(2, 0, 1), target.permute(2, 0, 1))
    return (1 - ssim_lambda) * l1 + ssim_lambda * (1 - similarity) / share


def regularised(loss: Tensor, params: Mapping[str, Tensor], config: TrainConfig) -> Tensor:
    """A loss with the terms that keep Gaussians faint and small."""
    if config.opacity_reg:
        loss = loss + config.opacity_reg * torch.sigmoid(params["opacities"]).mean()
    if config.scale_reg:
        loss = loss + config.scale_reg * torch.exp(params["scales"]).mean()
    return loss


def mean_ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of [C, H, W] over the windows that lie inside the image."""
    if image.device.type == "cpu" and image.dtype == torch.float32:
        from stages.splat.cpu.ssim import MeanSsim

        return MeanSsim.apply(image, target)
    return mean_ssim_by_convolution(image, target)


def mean_ssim_by_convolution(image: Tensor, target: Tensor) -> Tensor:
    """The same by torch's convolutions: any device and precision, slower on a CPU."""
    return ssim_of_windows(image[None], target[None])[0]
