"""The CPU backend against gsplat's CUDA kernels."""

import pytest
import torch
from raster_scenes import HEIGHT, NAMES, WIDTH, camera, hard_scene, leaves, pinhole, relative_error
from torch import Tensor

from stages.splat.raster import choose_backend, rasterization

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

VIEWS = torch.stack([camera(1), camera(4)])
WEIGHTS = torch.randn(2, HEIGHT, WIDTH, 5, generator=torch.Generator().manual_seed(0))


def render(device: str, mode: str, absgrad: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Images and gradients, on the CPU."""
    background = torch.tensor([[0.2, 0.7, 0.4], [0.0, 0.5, 1.0]])
    scene = hard_scene(3, seed=11) | {"views": VIEWS, "background": background}
    inputs = leaves({name: part.to(device) for name, part in scene.items()})
    Ks = pinhole(WIDTH, HEIGHT).to(device).expand(2, 3, 3)
    images, alphas, info = rasterization(
        *(inputs[name] for name in NAMES),
        inputs["views"],
        Ks,
        WIDTH,
        HEIGHT,
        sh_degree=3,
        backgrounds=inputs["background"],
        render_mode="RGB+D",
        rasterize_mode=mode,
        absgrad=absgrad,
        backend="cuda" if device == "cuda" else "cpu",
    )
    info["means2d"].retain_grad()
    (torch.cat([images, alphas], dim=-1) * WEIGHTS.to(device)).sum().backward()
    gradients = {name: leaf.grad.cpu() for name, leaf in inputs.items()}
    gradients["means2d"] = info["means2d"].grad.cpu()
    if absgrad:
        gradients["absgrad"] = info["means2d"].absgrad.cpu()
    outputs = {"images": images, "alphas": alphas, "radii": info["radii"]}
    return {name: part.detach().cpu() for name, part in outputs.items()}, gradients


@pytest.mark.parametrize("absgrad", [False, True])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_same_as_gsplat(mode: str, absgrad: bool) -> None:
    assert choose_backend("cuda")[0] == "cuda"
    ours, our_gradients = render("cpu", mode, absgrad)
    theirs, their_gradients = render("cuda", mode, absgrad)
    for name in ("images", "alphas"):
        assert (ours[name] - theirs[name]).abs().mean() < 1e-3
    # Both round up a float32 product: one in a few hundred may fall on the other side.
    assert ((ours["radii"] - theirs["radii"]).abs() <= 1).all()
    assert (ours["radii"] != theirs["radii"]).float().mean() < 0.01
    errors = {name: relative_error(our_gradients[name], g) for name, g in their_gradients.items()}
    assert max(errors.values()) < 2e-3, errors
