"""The kernels against torch's own normalisation; without a GPU Triton runs them in Python."""

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
    found = nn.GroupNorm(groups, channels, eps=1e-6, device=DEVICE)
    with torch.no_grad():
        found.weight.copy_(random(channels, seed=1))
        found.bias.copy_(random(channels, seed=2))
    return found


# Channels that fill a tile, more than one and less; rows of one part and of several.
@pytest.mark.parametrize(
    ("shape", "groups", "silu", "shifted"),
    [((2, 24, 5, 7), 8, True, True), ((1, 80, 15, 18), 16, False, False)],
)
def test_values_and_gradients_are_torchs(
    shape: tuple[int, int, int, int], groups: int, silu: bool, shifted: bool
) -> None:
    one = layer(groups, shape[1])
    x = (2 * random(*shape) + 30).requires_grad_()  # a mean far above the spread
    shift = random(*shape[:2], seed=3).requires_grad_() if shifted else None
    found = group_norm(x, one, silu=silu, shift=shift)
    wanted = one(x if shift is None else x + shift[..., None, None])
    wanted = F.silu(wanted) if silu else wanted
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    learnt = [x, one.weight, one.bias, *([] if shift is None else [shift])]
    dy = random(*shape, seed=4)
    ours, torchs = (torch.autograd.grad(one, learnt, dy) for one in (found, wanted))
    for ours_one, torchs_one in zip(ours, torchs, strict=True):
        scale = float(torchs_one.abs().max())
        torch.testing.assert_close(ours_one, torchs_one, atol=3e-5 * scale, rtol=1e-3)


def test_half_precision_is_rounded_once() -> None:
    """Statistics are float32, so the result is the exact one to bf16's last digit.

    Triton in Python cuts digits off where a GPU rounds, so the whole digit is allowed.
    """
    one, x = layer(4, 16), random(1, 16, 6, 6).bfloat16()
    wanted = F.silu(one(x.float()))
    torch.testing.assert_close(group_norm(x, one, silu=True).float(), wanted, atol=1e-3, rtol=2**-7)


def test_biases_are_added_to_channels() -> None:
    x, other, bias = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), random(5, seed=2)
    inputs = [one.requires_grad_() for one in (x, other, bias)]
    found, wanted = add(*inputs), x + other + bias[:, None, None]
    torch.testing.assert_close(found, wanted)
    dy = random(2, 5, 3, 4, seed=3)
    ours, torchs = (torch.autograd.grad(one, inputs, dy) for one in (found, wanted))
    for pair in zip(ours, torchs, strict=True):
        torch.testing.assert_close(*pair)
