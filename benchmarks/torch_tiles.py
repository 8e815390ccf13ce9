"""A plain rasteriser to compare with: torch operators on tiles of 16 px, gradients by autograd.

One camera, classic mode, RGB and depth; the same image as `stages.splat` renders.
"""

import torch
from torch import Tensor

from stages.splat.rotations import rotations_from_quats

TILE = 16
EPS2D = 0.3


def rasterize(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    sh: Tensor,  # [N, 16, 3]
    view: Tensor,  # [4, 4] cam_from_world
    K: Tensor,  # [3, 3]
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Colours and depth [H, W, 4], alpha [H, W, 1]."""
    p = means @ view[:3, :3].T + view[:3, 3]
    order = torch.argsort(p[:, 2].detach())
    order = order[p[order, 2] > 0.01]
    p = p[order]
    covariances = _project(p, quats[order], scales[order], view, K, width, height)
    xx, xy, yy = covariances.unbind(-1)
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    centres = p[:, :2] / p[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
    eye = -view[:3, :3].T @ view[:3, 3]
    features = torch.cat([_shade(means[order] - eye, sh[order]), p[:, 2:]], dim=-1)
    radii = 3.33 * torch.stack([xx, yy], dim=-1).detach().sqrt()
    parts = (centres, conics, features, opacities[order])
    low, high = (centres - radii).detach(), (centres + radii).detach()
    rows = []
    for top in range(0, height, TILE):
        row = [
            _tile(parts, low, high, top, side, min(TILE, height - top), min(TILE, width - side))
            for side in range(0, width, TILE)
        ]
        rows.append(torch.cat(row, dim=1))
    image = torch.cat(rows)
    return image[..., :4], image[..., 4:]


def _project(
    p: Tensor, quats: Tensor, scales: Tensor, view: Tensor, K: Tensor, width: int, height: int
) -> Tensor:
    """Blurred covariances on the screen [N, 3] as xx, xy, yy."""
    rotations = rotations_from_quats(quats)
    size, focal, middle = torch.tensor([width, height]), K[[0, 1], [0, 1]], K[:2, 2]
    slopes = p[:, :2] / p[:, 2:]
    margin = 0.15 * size
    slopes = slopes.clamp((-middle - margin) / focal, (size - middle + margin) / focal)
    zero, depth = torch.zeros_like(p[:, 0]), p[:, 2]
    jacobians = torch.stack(
        [
            focal[0] / depth,
            zero,
            -focal[0] * slopes[:, 0] / depth,
            zero,
            focal[1] / depth,
            -focal[1] * slopes[:, 1] / depth,
        ],
        dim=-1,
    ).reshape(-1, 2, 3)
    footprints = jacobians @ view[:3, :3] @ (rotations * scales[:, None])
    covariances = footprints @ footprints.transpose(1, 2)
    return torch.stack(
        [covariances[:, 0, 0] + EPS2D, covariances[:, 0, 1], covariances[:, 1, 1] + EPS2D], dim=-1
    )


def _tile(
    parts: tuple[Tensor, ...],
    low: Tensor,
    high: Tensor,
    top: int,
    side: int,
    rows: int,
    columns: int,
) -> Tensor:
    """Features, then alpha [rows, columns, 5]."""
    touching = (low[:, 0] < side + columns) & (high[:, 0] > side)
    touching &= (low[:, 1] < top + rows) & (high[:, 1] > top)
    chosen = touching.nonzero()[:, 0]
    centres, conics, features, opacities = (part[chosen] for part in parts)
    y, x = torch.meshgrid(
        torch.arange(rows) + top + 0.5, torch.arange(columns) + side + 0.5, indexing="ij"
    )
    dx = centres[:, 0] - x.reshape(-1, 1)
    dy = centres[:, 1] - y.reshape(-1, 1)
    sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alphas = (opacities * torch.exp(-sigma)).clamp(max=0.999)
    alphas = alphas * (alphas >= 1 / 255)
    after = torch.cumprod(1 - alphas, dim=1)
    with torch.no_grad():
        rendered = after > 1e-4
    ones = torch.ones_like(alphas[:, :1])
    weights = alphas * torch.cat([ones, after[:, :-1]], dim=1) * rendered
    image = torch.cat([weights @ features, weights.sum(1, keepdim=True)], dim=-1)
    return image.reshape(rows, columns, 5)


def _shade(directions: Tensor, sh: Tensor) -> Tensor:
    """Colours [N, 3] of harmonics of degree 3."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = torch.stack(
        [
            torch.full_like(x, 0.2820948),
            -0.4886025 * y,
            0.4886025 * z,
            -0.4886025 * x,
            1.0925484 * x * y,
            -1.0925484 * y * z,
            0.3153916 * (3 * zz - 1),
            -1.0925484 * x * z,
            0.5462742 * (xx - yy),
            -0.5900436 * y * (3 * xx - yy),
            2.8906114 * x * y * z,
            -0.4570458 * y * (5 * zz - 1),
            0.3731763 * z * (5 * zz - 3),
            -0.4570458 * x * (5 * zz - 1),
            1.4453057 * z * (xx - yy),
            -0.5900436 * x * (xx - 3 * yy),
        ],
        dim=-1,
    )
    return (torch.einsum("nk,nkc->nc", basis, sh) + 0.5).clamp(min=0)
