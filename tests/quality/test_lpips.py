"""LPIPS: published values with the real weights, and the lpips package's own at any weights."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.quality.metrics.lpips import Lpips


@pytest.fixture(scope="module")
def alex(random_backbone: Callable[[str], Path]) -> Lpips:
    return Lpips(random_backbone("alex"), "alex")


def package_lpips(net: str, features: dict[str, Tensor]) -> nn.Module:
    """The package's own network with the same backbone."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    names = {key.split(".", 1)[1]: key for key in found.net.state_dict()}
    found.net.load_state_dict({names[key]: features[key] for key in names})
    return found


@pytest.mark.parametrize(("net", "expected"), [("alex", 0.148562), ("squeeze", 0.100802)])
def test_golden_values(lpips_weights: Path, net: str, expected: float) -> None:
    """The random pair of torchmetrics' documentation, where squeeze gives 0.1008."""
    torch.manual_seed(123)
    a, b = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    distances = Lpips(lpips_weights, net)(a, b)
    assert distances.shape == (10,)
    assert float(distances.mean()) == pytest.approx(expected, abs=2e-6)


@pytest.mark.slow  # the package takes seconds to import
@pytest.mark.parametrize("size", [(64, 64), (45, 83)])
@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_equals_the_package(
    random_backbone: Callable, images: Callable, net: str, size: tuple[int, int]
) -> None:
    folder = random_backbone(net)
    theirs = package_lpips(net, load_file(folder / f"{net}.safetensors"))
    ours = Lpips(folder, net)
    a, b = images(2, *size, seed=1), images(2, *size, seed=2)
    expected = theirs(2 * a - 1, 2 * b - 1).flatten()
    assert expected.min() > 1e-3
    assert ours(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    theirs.spatial = True
    torch.testing.assert_close(ours.map(a, b), theirs(2 * a - 1, 2 * b - 1), rtol=1e-4, atol=1e-6)


def test_identity_symmetry_and_order(alex: Lpips, images: Callable) -> None:
    a = images(1, 64, 64)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    little, much = ((a + size * noise).clamp(0, 1) for size in (0.05, 0.3))
    assert float(alex(a, a)) == 0
    assert float(alex(a, much)) == pytest.approx(float(alex(much, a)), abs=1e-7)
    assert 0 < float(alex(a, little)) < float(alex(a, much))


def test_map_has_the_size_of_the_image_and_shows_where(alex: Lpips, images: Callable) -> None:
    a = images(1, 96, 96)
    b = a.clone()
    b[..., :32, :32] = images(1, 32, 32, seed=9)
    found = alex.map(a, b)
    assert found.shape == (1, 1, 96, 96)
    assert found[..., :32, :32].mean() > 5 * found[..., 64:, 64:].mean()


def test_gradient_reaches_images_and_nothing_is_learnt(alex: Lpips, images: Callable) -> None:
    a = images(1, 64, 64).requires_grad_()
    alex(a, images(1, 64, 64, seed=1)).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().max() > 0
    assert list(alex.parameters()) == []


def test_gradient_of_dead_activations_is_finite(
    random_backbone: Callable, images: Callable
) -> None:
    dead = Lpips(random_backbone("alex"), "alex")
    dead.features.get_buffer("0_bias").fill_(-1e3)
    a = images(1, 64, 64).requires_grad_()
    dead(a, images(1, 64, 64, seed=1)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_refuses_images_below_32_px(alex: Lpips) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        alex(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))
