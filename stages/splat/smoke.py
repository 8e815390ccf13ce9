"""A cloud rendered and differentiated on the GPU and on the CPU: `python -m stages.splat.smoke`.

Prints one line of figures; ends with an error when the two disagree or a kernel cannot run.
"""

import sys

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.splat.raster import choose_backend, rasterization

_COUNT, _WIDTH, _HEIGHT = 200, 64, 48
# Both sum the same terms in float32, in different orders.
_MAX_DIFFERENCE = 1e-3


def main() -> None:
    """Compare image and gradient of both backends."""
    _, reason = choose_backend("cuda")
    image, gradient = render_cloud("cuda")
    cpu_image, cpu_gradient = render_cloud("cpu")
    differences = [
        float((image - cpu_image).abs().mean()),
        float((gradient - cpu_gradient).abs().mean() / cpu_gradient.abs().mean()),
    ]
    result = f"{reason}: image differs from the CPU's by {differences[0]:.1e}, gradient by "
    result += f"{differences[1]:.1e}"
    if not max(differences) <= _MAX_DIFFERENCE:
        raise UserError("gsplat", result, expected=f"at most {_MAX_DIFFERENCE}")
    print(result)


def render_cloud(backend: str) -> tuple[Tensor, Tensor]:
    """Render [H, W, 3] of a cloud in front of a camera, and the gradient [N, 3] of its means."""
    random = torch.Generator().manual_seed(0)
    means = torch.randn(_COUNT, 3, generator=random) * 0.5 + torch.tensor([0.0, 0.0, 4.0])
    quats = torch.randn(_COUNT, 4, generator=random)
    scales = torch.rand(_COUNT, 3, generator=random) * 0.1 + 0.02
    opacities = torch.rand(_COUNT, generator=random) * 0.8 + 0.1
    colors = torch.randn(_COUNT, 4, 3, generator=random) * 0.3
    K = torch.tensor([[60.0, 0.0, _WIDTH / 2], [0.0, 60.0, _HEIGHT / 2], [0.0, 0.0, 1.0]])
    arguments = [means, quats, scales, opacities, colors, torch.eye(4)[None], K[None]]
    arguments = [tensor.to(backend) for tensor in arguments]
    arguments[0].requires_grad_()
    images, _, _ = rasterization(*arguments, _WIDTH, _HEIGHT, backend=backend, sh_degree=1)
    images.square().mean().backward()
    assert arguments[0].grad is not None, "no gradient"
    return images[0].detach().cpu(), arguments[0].grad.cpu()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error).replace("\n", "; "))
