import pytest
import torch
from torch import Tensor

from stages.difix.pretraining import artefacts
from stages.difix.pretraining.artefacts import degraded
from stages.difix.pretraining.dead_leaves import Leaves, Viewpoints, paint, scatter, viewpoints


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(batch: int = 8) -> tuple[Leaves, Viewpoints, Tensor]:
    random = generator()
    leaves, views = scatter(batch, 12, random), viewpoints(batch, 0.2, random)
    return leaves, views, paint(leaves, views, 48, 40)


def test_a_degraded_image_is_worse_but_similar() -> None:
    leaves, views, clean = scene(16)
    image = degraded(leaves, views, clean, generator())
    assert image.shape == clean.shape
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    decibels = -10 * (image - clean).square().mean(dim=(1, 2, 3)).log10()
    assert 16 < float(decibels.mean()) < 27
    assert float(decibels.max() - decibels.min()) > 4  # strengths vary


def test_all_random_numbers_come_from_the_generator() -> None:
    torch.manual_seed(0)
    first = degraded(*scene(), generator(3))
    torch.manual_seed(1)
    assert torch.equal(first, degraded(*scene(), generator(3)))
    assert not torch.equal(first, degraded(*scene(), generator(4)))


@pytest.mark.parametrize("artefact", ["_smeared", "_blurred", "_unobserved"])
def test_an_artefact_leaves_some_images_alone(artefact: str) -> None:
    clean = scene(32)[2]
    image = getattr(artefacts, artefact)(clean, generator())
    change = (image - clean).abs().amax(dim=(1, 2, 3))
    assert 2 <= int((change < 1e-4).sum()) < 30
    assert float(change.max()) > 0.05


def test_blur_keeps_the_brightness_and_flattens() -> None:
    clean = scene(4)[2]
    blurred = artefacts._blur(clean, 1.6)
    torch.testing.assert_close(blurred.mean((2, 3)), clean.mean((2, 3)), atol=0.01, rtol=0)
    assert (blurred.var((2, 3)) < clean.var((2, 3))).all()


def test_ghosts_are_the_scene_itself_displaced() -> None:
    """Where all leaves have one colour, moving them changes nothing."""
    leaves, views, _ = scene(4)
    leaves.color.fill_(0.5)
    leaves.contrast.zero_()
    leaves.shading.zero_()
    clean = paint(leaves, views, 48, 40)
    ghosted = artefacts._ghosted(leaves, views, clean, generator())
    torch.testing.assert_close(ghosted, clean)


def test_single_gaussians_are_few_pixels_wide() -> None:
    grey = torch.full((4, 3, 40, 48), 0.5)
    grey[:, :, :20] = 0.1
    splattered = artefacts._splattered(grey, 6, (2.0, 4.0), (0.5, 1.0), (0.5, 0.9), generator())
    touched = ((splattered - grey).abs().amax(dim=1) > 0.02).float().mean(dim=(1, 2))
    assert (touched < 0.5).all()
    assert float(touched.max()) > 0
