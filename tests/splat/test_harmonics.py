"""The basis is orthonormal; rotated coefficients give the rotated colours."""

import numpy as np
import pytest
import torch

from stages.scenes.cameras import rotation_from_vector
from stages.splat.harmonics import basis, rotated


def directions(count: int) -> np.ndarray:
    points = np.random.default_rng(3).standard_normal((count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_basis_is_orthonormal_over_the_sphere() -> None:
    # Gauss-Legendre in z and equal steps around it: exact for products of degree 3.
    z, weights = np.polynomial.legendre.leggauss(8)
    around = np.arange(16) * np.pi / 8
    flat = np.sqrt(1 - z**2)[:, None]
    points = np.stack(
        [flat * np.cos(around), flat * np.sin(around), np.broadcast_to(z[:, None], (8, 16))], -1
    )
    values = basis(points.reshape(-1, 3))
    gram = values.T @ (values * np.repeat(weights * np.pi / 8, 16)[:, None])
    assert np.allclose(gram, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("count", [0, 3, 8, 15])
def test_rotated_colour_is_the_old_one_from_the_old_direction(count: int) -> None:
    rest = torch.tensor(np.random.default_rng(0).standard_normal((5, count, 3)))
    rotation = rotation_from_vector([0.7, -0.4, 1.9])
    after = rotated(rest, rotation)
    rays = directions(40)
    new = np.einsum("dk,nkc->dnc", basis(rays)[:, 1 : count + 1], after.numpy())
    old = np.einsum("dk,nkc->dnc", basis(rays @ rotation)[:, 1 : count + 1], rest.numpy())
    assert np.allclose(new, old, atol=1e-9)
