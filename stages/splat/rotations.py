"""Rotations of many quaternions at once, differentiable; of one, `scenes.cameras`."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def rotations_from_quats(quats: Tensor) -> Tensor:
    """Rotations [..., 3, 3] of quaternions wxyz [..., 4] of any length.

    >>> rotations_from_quats(torch.tensor([2.0, 0.0, 0.0, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))
