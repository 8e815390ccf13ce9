"""Real spherical harmonics up to degree 3, in the order and signs of 3D Gaussian Splatting."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from stages.scenes.cameras import Array


def basis(directions: Array) -> Array:
    """Values [N, 16] at unit directions [N, 3]: degree 0, then -1..1, -2..2 and -3..3."""
    x, y, z = directions.T
    xx, yy, zz = x * x, y * y, z * z
    c1, c2 = 0.4886025119029199, 1.0925484305920792
    return np.stack(
        [
            np.full_like(x, 0.28209479177387814),
            -c1 * y,
            c1 * z,
            -c1 * x,
            c2 * x * y,
            -c2 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -c2 * x * z,
            0.5462742152960396 * (xx - yy),
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
        axis=1,
    )


def rotated(rest: Tensor, rotation: Array) -> Tensor:
    """Coefficients [N, K, 3] above degree 0, rotated with the scene."""
    count = rest.shape[1]
    if count == 0:
        return rest
    # The rotated colour at d is the old one at R^T d; each degree maps onto itself, so the least
    # squares over many directions is exact.
    directions = _directions()
    before = basis(directions @ rotation)[:, 1 : count + 1]
    after = basis(directions)[:, 1 : count + 1]
    mapping = torch.tensor(np.linalg.lstsq(after, before, rcond=None)[0])
    return torch.einsum("jk,nkc->njc", mapping, rest)


@cache
def _directions() -> Array:
    points = np.random.default_rng(0).standard_normal((256, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)
