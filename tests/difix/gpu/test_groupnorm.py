"""The kernels against torch's normalisation; without a GPU Triton interprets them in Python."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stages.difix.gpu.groupnorm import add, group_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE)


def layer(groups: int, channels: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, eps=1e-6, device=DEVICE)
    with torch.no_grad():
        norm.weight.copy_(random(channels, seed=1))
        norm.bias.copy_(random(channels, seed=2))
    return norm


# Fewer channels than a tile has, and more; rows of one chunk and of several.
@pytest.mark.parametrize(
    ("shape", "groups", "silu", "shifted"),
    [((2, 24, 5, 7), 8, True, True), ((1, 80, 15, 18), 16, False, False)],
)
def test_values_and_gradients_equal_torchs(
    shape: tuple[int, int, int, int], groups: int, silu: bool, shifted: bool
) -> None:
    norm = layer(groups, shape[1])
    x = (2 * random(*shape) + 30).requires_grad_()  # a mean far above the spread
    shift = random(*shape[:2], seed=3).requires_grad_() if shifted else None
    y = group_norm(x, norm, silu=silu, shift=shift)
    expected = norm(x if shift is None else x + shift[..., None, None])
    expected = F.silu(expected) if silu else expected
    torch.testing.assert_close(y, expected, atol=2e-5, rtol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)
    inputs = [x, norm.weight, norm.bias, *([] if shift is None else [shift])]
    dy = random(*shape, seed=4)
    gradients, torchs = (torch.autograd.grad(output, inputs, dy) for output in (y, expected))
    for gradient, torchs_gradient in zip(gradients, torchs, strict=True):
        scale = float(torchs_gradient.abs().max())
        torch.testing.assert_close(gradient, torchs_gradient, atol=3e-5 * scale, rtol=1e-3)


def test_half_precision_is_rounded_once() -> None:
    """Statistics are float32, so the result is exact up to the last digit of bf16.

    Triton's interpreter truncates where a GPU rounds, so an error of a whole digit is allowed.
    """
    norm, x = layer(4, 16), random(1, 16, 6, 6).bfloat16()
    expected = F.silu(norm(x.float()))
    torch.testing.assert_close(
        group_norm(x, norm, silu=True).float(), expected, atol=1e-3, rtol=2**-7
    )


def test_biases_are_added_to_channels() -> None:
    x, other, bias = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), random(5, seed=2)
    inputs = [tensor.requires_grad_() for tensor in (x, other, bias)]
    y, expected = add(*inputs), x + other + bias[:, None, None]
    torch.testing.assert_close(y, expected)
    dy = random(2, 5, 3, 4, seed=3)
    gradients, torchs = (torch.autograd.grad(output, inputs, dy) for output in (y, expected))
    for pair in zip(gradients, torchs, strict=True):
        torch.testing.assert_close(*pair)
