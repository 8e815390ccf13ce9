"""The GPU's own rasteriser against brute force in float64: images, alphas and every gradient."""

from collections.abc import Iterator

import pytest
import torch
from host_kernels import available
from kernel_device import DEVICE
from raster_reference import ExactRender, rasterize
from raster_scenes import HEIGHT, NAMES, WIDTH, camera, hard_scene, leaves, pinhole, relative_error
from torch import Tensor

from stages.splat.config import TrainConfig
from stages.splat.gpu import compiled, own
from stages.splat.gpu.rasterize import usable

IMAGE_ERROR = 1e-5
GRADIENT_ERROR = 1e-4
K = pinhole(WIDTH, HEIGHT)


@pytest.fixture(scope="module", autouse=True)
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with available(tmp_path_factory.mktemp("kernels")):
        yield


def ours(
    inputs: dict[str, Tensor], settings: own.Settings
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
    """Image, alpha, gradients of a weighted sum of both, and radii."""
    there = {name: part.to(DEVICE).detach().requires_grad_() for name, part in inputs.items()}
    view = there["view"]
    eye = torch.linalg.inv(view)[:3, 3]
    means2d = torch.zeros(1, len(there["means"]), 2, device=DEVICE, requires_grad=True)
    background = there["background"]
    if settings.depth:
        background = torch.cat([background, background.new_zeros(1)])
    image, left, radii, _ = own.Splat.apply(
        *(there[name] for name in NAMES), view, eye, background, means2d, K.to(DEVICE), settings
    )
    alpha = 1 - left[..., None]
    loss = (torch.cat([image, alpha], dim=-1) * weights(image.shape[-1]).to(DEVICE)).sum()
    found = torch.autograd.grad(loss, [*there.values(), means2d])
    gradients = dict(zip([*there, "means2d"], (one.cpu() for one in found), strict=True))
    if settings.absgrad:
        gradients["absgrad"] = means2d.absgrad.cpu()
    gradients["means2d"] = gradients["means2d"][0]
    return image.detach().cpu(), alpha.detach().cpu(), gradients, radii[0].cpu()


def exact(
    inputs: dict[str, Tensor], settings: own.Settings
) -> tuple[ExactRender, dict[str, Tensor]]:
    """The same by brute force."""
    there = leaves(inputs, torch.float64)
    render = rasterize(
        *(there[name] for name in NAMES),
        there["view"],
        K.double(),
        WIDTH,
        HEIGHT,
        sh_degree=settings.sh_degree,
        background=there["background"],
        render_mode="RGB+D" if settings.depth else "RGB",
        antialiased=settings.antialiased,
    )
    render.means2d.retain_grad()
    render.offsets.retain_grad()
    both = torch.cat([render.image, render.alpha], dim=-1)
    (both * weights(render.image.shape[-1]).double()).sum().backward()
    gradients = {name: leaf.grad for name, leaf in there.items()}
    gradients["means2d"] = render.means2d.grad
    absolute = torch.zeros_like(render.means2d)
    absolute[render.order] = render.offsets.grad.abs().sum(0)
    return render, gradients | {"absgrad": absolute}


def weights(channels: int) -> Tensor:
    """Of an image's channels and of alpha."""
    random = torch.Generator().manual_seed(1)
    return torch.randn(HEIGHT, WIDTH, channels + 1, generator=random)


def scene(degree: int, seed: int) -> dict[str, Tensor]:
    """Gaussians, the view and a background."""
    extra = {"view": camera(seed % 8), "background": torch.tensor([0.2, 0.7, 0.4])}
    return hard_scene(degree, seed) | extra


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize(("degree", "seed"), [(3, 8), (0, 4)])
def test_image_and_gradients(degree: int, seed: int, antialiased: bool, depth: bool) -> None:
    settings = own.Settings(
        WIDTH, HEIGHT, degree, antialiased=antialiased, depth=depth, absgrad=depth
    )
    inputs = scene(degree, seed)
    image, alpha, gradients, _ = ours(inputs, settings)
    by_definition, expected = exact(inputs, settings)
    assert by_definition.margin > 1e-5, "another seed is needed"
    assert (image - by_definition.image).abs().max() < IMAGE_ERROR * max(1, image.abs().max())
    assert (alpha - by_definition.alpha).abs().max() < IMAGE_ERROR
    errors = {name: relative_error(one, expected[name]) for name, one in gradients.items()}
    assert max(errors.values()) < GRADIENT_ERROR, errors


@pytest.mark.parametrize(("why", "taken"), [(None, "own"), ("no compiler", "gsplat")])
def test_gsplat_stands_in_where_kernels_cannot_be_built(
    why: str | None, taken: str, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(compiled, "failure", lambda: why)
    config = TrainConfig(max_steps=7, rasteriser="own")
    assert usable(config) == config.model_copy(update={"rasteriser": taken})
    assert ("train.rasteriser" in caplog.text) == (why is not None)
    chosen = TrainConfig(rasteriser="gsplat")
    assert usable(chosen) is chosen
