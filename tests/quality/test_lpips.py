"""LPIPS: published values with the real weights, and no download without them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stages.quality.lpips import Lpips


@pytest.fixture(scope="module")
def alex(weights: Path) -> Lpips:
    return Lpips(weights, "alex")


@pytest.mark.slow  # the package imports torchvision, which takes seconds
@pytest.mark.parametrize(("net", "expected"), [("alex", 0.148562), ("squeeze", 0.100802)])
def test_golden_values(weights: Path, net: str, expected: float) -> None:
    """The random pair of torchmetrics' documentation, where squeeze gives 0.1008."""
    torch.manual_seed(123)
    a, b = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    distances = Lpips(weights, net)(a, b)
    assert distances.shape == (10,)
    assert float(distances.mean()) == pytest.approx(expected, abs=2e-6)


@pytest.mark.slow
def test_scales_images_to_the_range_of_the_package(alex: Lpips, images: Callable) -> None:
    a, b = images(2, 64, 64, seed=1), images(2, 64, 64, seed=2)
    expected = alex._distance(2 * a - 1, 2 * b - 1).flatten()
    assert alex(a, b).tolist() == pytest.approx(expected.tolist(), abs=1e-7)


@pytest.mark.slow
def test_identity_symmetry_and_order(alex: Lpips, images: Callable) -> None:
    a = images(1, 64, 64)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    little, much = ((a + size * noise).clamp(0, 1) for size in (0.05, 0.3))
    assert float(alex(a, a)) == 0
    assert float(alex(a, much)) == pytest.approx(float(alex(much, a)), abs=1e-7)
    assert 0 < float(alex(a, little)) < float(alex(a, much))


@pytest.mark.slow
def test_map_has_the_size_of_the_image_and_shows_where(alex: Lpips, images: Callable) -> None:
    a = images(1, 96, 96)
    b = a.clone()
    b[..., :32, :32] = images(1, 32, 32, seed=9)
    found = alex.map(a, b)
    assert found.shape == (1, 1, 96, 96)
    assert found[..., :32, :32].mean() > 5 * found[..., 64:, 64:].mean()


@pytest.mark.slow
def test_gradient_reaches_images_and_no_weight(alex: Lpips, images: Callable) -> None:
    a = images(1, 64, 64).requires_grad_()
    alex(a, images(1, 64, 64, seed=1)).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in alex.parameters())


@pytest.mark.slow
def test_leaves_the_random_state_alone(weights: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Lpips(weights, "squeeze")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_refuses_images_below_32_px(alex: Lpips) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        alex(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))
