"""Checks of the inputs of all metrics: pairs of float images [B, 3, H, W] in [0, 1]."""

import torch
from torch import Tensor

# Interpolation may exceed the range by this much.
_SLACK = 1e-3


class OutOfRange(ValueError):
    """Images whose values are not finite, or far from [0, 1]."""


def check_pair(a: Tensor, b: Tensor, smallest_px: int = 1) -> None:
    """Raise ValueError unless both are image batches of equal shape."""
    if a.shape != b.shape:
        raise ValueError(f"images of shapes {tuple(a.shape)} and {tuple(b.shape)} do not pair")
    for images in (a, b):
        check_images(images, smallest_px)


def check_mask(mask: Tensor, images: Tensor) -> None:
    """Raise ValueError unless `mask` [B, 1, H, W] is 0 or 1, with pixels in each image."""
    expected = (len(images), 1, *images.shape[-2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"a mask of shape {tuple(mask.shape)}; expected {expected}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("a mask holds values other than 0 and 1")
    empty = [index for index, one in enumerate(mask) if not one.any()]
    if empty:
        raise ValueError(f"the mask of image {empty[0]} is empty")


def check_images(images: Tensor, smallest_px: int = 1) -> None:
    """Raise ValueError unless `images` is an image batch of at least so many px a side."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images of shape {tuple(images.shape)}; expected [B, 3, H, W]")
    if not images.is_floating_point():
        raise ValueError(f"images of type {images.dtype}; expected floats in [0, 1]")
    if min(images.shape[-2:]) < smallest_px:
        size = f"{images.shape[-1]}x{images.shape[-2]}"
        raise ValueError(f"images of {size} px; at least {smallest_px} px a side are needed")
    if images.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # values are unknown while a graph is recorded
    low, high = images.detach().aminmax()
    # Written so that NaN fails too.
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise OutOfRange(f"images with values from {low:.4g} to {high:.4g}; expected [0, 1]")
