import pytest
import torch

from stages.difix.pretraining.dead_leaves import Leaves, Viewpoints, paint, scatter, viewpoints

STILL = Viewpoints(torch.zeros(1, 2), torch.eye(2)[None])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc(x: float = 0.0, nearness: float = 1.0) -> Leaves:
    """A white disc of radius 0.5 on a black background, without texture or shading."""
    leaves = scatter(1, 2, generator())
    plain = {
        "centre": torch.tensor([[[0.0, 0.0], [x, 0.0]]]),
        "half_size": torch.tensor([[[50.0, 50.0], [0.5, 0.5]]]),
        "exponent": torch.full((1, 2), 2.0),
        "nearness": torch.tensor([[0.0, nearness]]),
        "color": torch.tensor([[[0.0] * 3, [1.0] * 3]]),
        "contrast": torch.zeros(1, 2),
        "shading": torch.zeros(1, 2, 2),
    }
    fields = {name: getattr(leaves, name) for name in leaves.__dataclass_fields__}
    return Leaves(**fields | plain)


def test_images_depend_on_the_seed() -> None:
    images = []
    for seed in (0, 0, 1):
        random = generator(seed)
        leaves, views = scatter(2, 12, random), viewpoints(2, 0.2, random)
        images.append(paint(leaves, views, 40, 32))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert images[0].shape == (2, 3, 32, 40)
    assert 0 <= float(images[0].min()) < float(images[0].max()) <= 1


def test_a_disc_has_its_area_and_position() -> None:
    image = paint(disc(), STILL, 200, 200)[0, 0]
    assert float(image.mean()) == pytest.approx(torch.pi * 0.5**2 / 4, abs=2e-3)
    assert float(image[100, 100]) == 1
    assert float(image[100, 160]) == 0


def test_near_leaves_move_more_than_far_ones() -> None:
    shifted = Viewpoints(torch.tensor([[0.4, 0.0]]), STILL.bend)
    columns = torch.arange(200) + 0.5
    for nearness in (0.25, 1.0):
        image = paint(disc(nearness=nearness), shifted, 200, 200)[0, 0]
        centre = float((image.sum(0) * columns).sum() / image.sum())
        assert centre == pytest.approx(100 + 100 * 0.4 * nearness, abs=0.1)


def test_the_nearer_leaf_covers_the_farther() -> None:
    leaves = scatter(3, 30, generator())
    assert (leaves.nearness.diff(dim=1) >= 0).all()
    assert (leaves.half_size[:, 0] == 50).all()  # no pixel is left without a leaf


def test_edges_are_smooth_over_a_pixel() -> None:
    image = paint(disc(), STILL, 100, 100)[0, 0]
    row = image[50]
    between = (row > 0) & (row < 1)
    assert 0 < int(between.sum()) <= 4
