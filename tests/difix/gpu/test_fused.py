"""A fixer whose layers are joined is the same fixer."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from fixers import perturbed, published_spec, random_images, tiny_spec
from torch import Tensor, nn

from stages.difix.gpu import fused
from stages.difix.network.model import Fixer
from stages.difix.network.spec import Spec


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels have tests of their own, and take minutes in Python."""

    def group_norm(
        x: Tensor, layer: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        found = layer.__class__.forward(layer, x if shift is None else x + shift[..., None, None])
        return F.silu(found) if silu else found

    monkeypatch.setattr(fused, "group_norm", group_norm)
    monkeypatch.setattr(fused, "add", lambda x, other, bias: x + other + bias[:, None, None])


def answers(fixer: Fixer, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradient of everything that has one."""
    output = fixer(images)
    output.square().sum().backward()
    found = fixer.named_parameters()
    return output, {name: one.grad for name, one in found if one.grad is not None}


@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("spec", [published_spec(), tiny_spec()], ids=["published", "tiny"])
def test_outputs_and_gradients_stay(spec: Spec, checkpointing: bool) -> None:
    images = random_images(2, 2, 3, 16, 24)
    wanted, gradients = answers(perturbed(spec), images)
    fixer = perturbed(spec)
    fused.fuse(fixer)
    if checkpointing:
        fixer.use_checkpointing()
        fixer.train()  # diffusers forgets activations in training alone
    found, ours = answers(fixer, images)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert ours.keys() == gradients.keys()
    largest = max(float(one.norm()) for one in gradients.values())
    for name, gradient in gradients.items():
        # Of a bias before a normalisation nothing but rounding is left.
        bound = 1e-3 * float(gradient.norm()) + 1e-6 * largest
        assert float((ours[name] - gradient).norm()) < bound, name


def test_wide_attention_is_attention() -> None:
    query, key, value = (random_images(2, 9, 24, seed=seed) for seed in range(3))
    wanted = F.scaled_dot_product_attention(*(x[:, None] for x in (query, key, value)))[:, 0]
    torch.testing.assert_close(fused.wide_attention(query, key, value), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_give_a_gpu_the_same_picture(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 to rounding; in less, no further from it than torch's own layers."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images = random_images(2, 2, 3, 64, 96).cuda()
    exact, plain, joined = (perturbed(published_spec()).cuda() for _ in range(3))
    fused.fuse(joined)
    with torch.no_grad():
        wanted = exact(images)
        lower = {"dtype": dtype, "memory_format": torch.channels_last}
        theirs, ours = (
            float((one.to(**lower)(images).float() - wanted).norm() / wanted.norm())
            for one in (plain, joined)
        )
    assert ours < (2e-3 if dtype == torch.float32 else 1.2 * theirs)
