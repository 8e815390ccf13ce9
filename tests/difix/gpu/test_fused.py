"""A fixer with fused layers computes the same as one without."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from fixers import perturbed, published_spec, random_images, tiny_spec
from torch import Tensor, nn

from stages.difix.gpu import fused
from stages.difix.network.model import Fixer
from stages.difix.network.spec import Spec


@pytest.fixture
def torch_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch in place of the kernels, which have their own tests and take minutes in Python."""

    def group_norm(
        x: Tensor, layer: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        y = layer.__class__.forward(layer, x if shift is None else x + shift[..., None, None])
        return F.silu(y) if silu else y

    monkeypatch.setattr(fused, "group_norm", group_norm)
    monkeypatch.setattr(fused, "add", lambda x, other, bias: x + other + bias[:, None, None])


def output_and_gradients(fixer: Fixer, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients of all parameters that have one."""
    output = fixer(images)
    output.square().sum().backward()
    parameters = fixer.named_parameters()
    return output, {name: weight.grad for name, weight in parameters if weight.grad is not None}


@pytest.mark.usefixtures("torch_layers")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("spec", [published_spec(), tiny_spec()], ids=["published", "tiny"])
def test_fusion_keeps_outputs_and_gradients(spec: Spec, checkpointing: bool) -> None:
    images = random_images(2, 2, 3, 16, 24)
    expected, expected_gradients = output_and_gradients(perturbed(spec), images)
    fixer = perturbed(spec)
    fused.fuse(fixer)
    if checkpointing:
        fixer.use_checkpointing()
        fixer.train()  # diffusers checkpoints only in training
    output, gradients = output_and_gradients(fixer, images)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(gradient.norm()) for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        # The gradient of a bias before a normalisation is only rounding error.
        bound = 1e-3 * float(gradient.norm()) + 1e-6 * largest
        assert float((gradients[name] - gradient).norm()) < bound, name


def test_wide_attention_equals_torchs() -> None:
    query, key, value = (random_images(2, 9, 24, seed=seed) for seed in range(3))
    expected = F.scaled_dot_product_attention(*(x[:, None] for x in (query, key, value)))[:, 0]
    torch.testing.assert_close(fused.wide_attention(query, key, value), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_compute_the_same_image_on_a_gpu(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 up to rounding; in lower precision, as close to it as torch's own layers."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images = random_images(2, 2, 3, 64, 96).cuda()
    exact, plain, fused_fixer = (perturbed(published_spec()).cuda() for _ in range(3))
    fused.fuse(fused_fixer)
    with torch.no_grad():
        expected = exact(images)
        lower = {"dtype": dtype, "memory_format": torch.channels_last}
        error_plain, error_fused = (
            float((fixer.to(**lower)(images).float() - expected).norm() / expected.norm())
            for fixer in (plain, fused_fixer)
        )
    assert error_fused < (2e-3 if dtype == torch.float32 else 1.2 * error_plain)
