"""A small scene drawn and differentiated on the GPU and on the CPU: `python -m stages.splat.smoke`.

Prints one line of figures; ends with an error when the two disagree or a kernel cannot run.
"""

import sys

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.splat.raster import choose_backend, rasterization

_COUNT, _WIDTH, _HEIGHT = 200, 64, 48
# Both sum the same terms in another order, in float32.
_LARGEST_DIFFERENCE = 1e-3


def main() -> None:
    """Compare picture and gradient of both backends."""
    _, reason = choose_backend("cuda")
    picture, gradient = drawn("cuda")
    same_picture, same_gradient = drawn("cpu")
    differences = [
        float((picture - same_picture).abs().mean()),
        float((gradient - same_gradient).abs().mean() / same_gradient.abs().mean()),
    ]
    told = f"{reason}: picture differs from the CPU's by {differences[0]:.1e}, gradient by "
    told += f"{differences[1]:.1e}"
    if not max(differences) <= _LARGEST_DIFFERENCE:
        raise UserError("gsplat", told, expected=f"at most {_LARGEST_DIFFERENCE}")
    print(told)


def drawn(backend: str) -> tuple[Tensor, Tensor]:
    """Picture [H, W, 3] of a cloud in front of a camera, and the gradient [N, 3] of its means."""
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(_COUNT, 3, generator=draw) * 0.5 + torch.tensor([0.0, 0.0, 4.0])
    quats = torch.randn(_COUNT, 4, generator=draw)
    scales = torch.rand(_COUNT, 3, generator=draw) * 0.1 + 0.02
    opacities = torch.rand(_COUNT, generator=draw) * 0.8 + 0.1
    colors = torch.randn(_COUNT, 4, 3, generator=draw) * 0.3
    K = torch.tensor([[60.0, 0.0, _WIDTH / 2], [0.0, 60.0, _HEIGHT / 2], [0.0, 0.0, 1.0]])
    given = [means, quats, scales, opacities, colors, torch.eye(4)[None], K[None]]
    given = [one.to(backend) for one in given]
    given[0].requires_grad_()
    picture, _, _ = rasterization(*given, _WIDTH, _HEIGHT, backend=backend, sh_degree=1)
    picture.square().mean().backward()
    assert given[0].grad is not None, "no gradient"
    return picture[0].detach().cpu(), given[0].grad.cpu()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error).replace("\n", "; "))
