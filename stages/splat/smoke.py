"""A cloud rendered and differentiated by the GPU's kernels and by torch alone.

`python -m stages.splat.smoke` prints one line of figures; it ends with an error when the two
disagree, a kernel cannot run, or torch has no code for the GPU. The CPU backend would take 15 s to
compile where it has not been used yet, so every pixel is compared with every Gaussian instead.
"""

import sys

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.splat.raster import choose_backend, rasterization
from stages.splat.raster import torch_impl as reference

_COUNT, _WIDTH, _HEIGHT, _DEGREE = 200, 64, 48, 1
_FOCAL_PX = 60.0
# Both sum the same terms in float32, in different orders.
_MAX_DIFFERENCE = 1e-3


def main() -> None:
    """Compare image and gradient of both."""
    _, reason = choose_backend("cuda")
    image, gradient = render_cloud("cuda")
    expected, expected_gradient = render_cloud("torch")
    differences = [
        float((image - expected).abs().mean()),
        float((gradient - expected_gradient).abs().mean() / expected_gradient.abs().mean()),
    ]
    result = f"{reason}: image differs from torch's by {differences[0]:.1e}, gradient by "
    result += f"{differences[1]:.1e}"
    if not max(differences) <= _MAX_DIFFERENCE:
        raise UserError("gsplat", result, expected=f"at most {_MAX_DIFFERENCE}")
    print(result)


def render_cloud(renderer: str) -> tuple[Tensor, Tensor]:
    """Render [H, W, 3] of a cloud in front of a camera, and the gradient [N, 3] of its means.

    `renderer` is a backend, `cpu` or `cuda`, or `torch`.
    """
    random = torch.Generator().manual_seed(0)
    means = torch.randn(_COUNT, 3, generator=random) * 0.5 + torch.tensor([0.0, 0.0, 4.0])
    quats = torch.randn(_COUNT, 4, generator=random)
    scales = torch.rand(_COUNT, 3, generator=random) * 0.1 + 0.02
    opacities = torch.rand(_COUNT, generator=random) * 0.8 + 0.1
    colors = torch.randn(_COUNT, 4, 3, generator=random) * 0.3
    K = torch.eye(3)
    K[:2] = torch.tensor([[_FOCAL_PX, 0.0, _WIDTH / 2], [0.0, _FOCAL_PX, _HEIGHT / 2]])
    device = "cpu" if renderer == "torch" else renderer
    arguments = [means, quats, scales, opacities, colors, torch.eye(4)[None], K[None]]
    arguments = [tensor.to(device) for tensor in arguments]
    arguments[0].requires_grad_()
    if renderer == "torch":
        image = _every_pixel_by_every_gaussian(*arguments)
    else:
        images, _, _ = rasterization(
            *arguments, _WIDTH, _HEIGHT, backend=renderer, sh_degree=_DEGREE
        )
        image = images[0]
    image.square().mean().backward()
    assert arguments[0].grad is not None, "no gradient"
    return image.detach().cpu(), arguments[0].grad.cpu()


def _every_pixel_by_every_gaussian(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
) -> Tensor:
    """Image [H, W, 3] by gsplat's torch functions, blended as its kernels do."""
    covariances, _ = reference._quat_scale_to_covar_preci(quats, scales, True, False, triu=False)
    projection = reference._fully_fused_projection(
        means, covariances, viewmats, Ks, _WIDTH, _HEIGHT
    )
    radii, centres, depths, conics = (values[0] for values in projection[:4])
    order = torch.argsort(depths)
    order = order[(radii > 0).all(-1)[order]]
    rgb = (reference._spherical_harmonics(_DEGREE, means, colors) + 0.5).clamp_min(0)[order]
    pixels = torch.cartesian_prod(torch.arange(_HEIGHT) + 0.5, torch.arange(_WIDTH) + 0.5)
    x, y = (centres[order] - pixels.flip(-1)[:, None]).unbind(-1)  # [H W, N]
    a, b, c = conics[order].unbind(-1)
    sigma = 0.5 * (a * x**2 + c * y**2) + b * x * y
    alphas = (opacities[order] * torch.exp(-sigma)).clamp(max=0.999)
    alphas = torch.where((sigma >= 0) & (alphas >= 1 / 255), alphas, 0.0)
    # A pixel ends before the Gaussian that would leave so little light.
    alphas = torch.where(torch.cumprod(1 - alphas, dim=1) > 1e-4, alphas, 0.0)
    left = torch.cumprod(1 - alphas, dim=1)
    weights = alphas * torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=1)
    return (weights @ rgb).reshape(_HEIGHT, _WIDTH, 3)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error).replace("\n", "; "))
