"""Spherical harmonics: orthonormality, and colours by degree."""

import numpy as np
from scipy.special import sph_harm_y

from stages.splat.cpu.compiling import f32
from stages.splat.cpu.sh import shade_forward


def basis_at(directions: np.ndarray) -> np.ndarray:
    """All sixteen basis values [P, 16], read off through colours."""
    count = len(directions)
    means, radii = directions.astype(f32), np.ones((count, 2), np.int32)
    values = np.empty((count, 16))
    for k in range(16):
        sh, colors = np.zeros((count, 16, 3), f32), np.zeros((count, 3), f32)
        # Half of each sign keeps clear of the clamp at zero.
        sh[:, k] = [0.1, -0.1, 0]
        shade_forward(means, sh, np.zeros(3, f32), radii, 3, colors)
        values[:, k] = (colors[:, 0] - colors[:, 1]) / 0.2
        np.testing.assert_allclose(colors[:, 2], 0.5)
    return values


def test_basis_is_scipys_up_to_sign() -> None:
    random = np.random.default_rng(0)
    directions = random.normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    values = basis_at(directions)
    for degree in range(4):
        for order in range(-degree, degree + 1):
            harmonic = sph_harm_y(degree, abs(order), polar, azimuth)
            part = harmonic.imag if order < 0 else harmonic.real
            expected = part * (np.sqrt(2) if order else 1)
            # 3D Gaussian Splatting keeps the Condon-Shortley sign, as scipy does.
            column = values[:, degree**2 + degree + order]
            np.testing.assert_allclose(column, expected, atol=1e-5)


def test_invisible_gaussians_are_not_shaded() -> None:
    colors = np.zeros((2, 3), f32)
    radii = np.array([[1, 0], [1, 1]], np.int32)
    shade_forward(np.ones((2, 3), f32), np.ones((2, 1, 3), f32), np.zeros(3, f32), radii, 0, colors)
    assert not colors[0].any()
    np.testing.assert_allclose(colors[1], 0.5 + 0.28209479, rtol=1e-6)


def test_colors_are_clamped_at_zero() -> None:
    colors, sh = np.zeros((1, 3), f32), np.array([[[-3.0, 0.0, 3.0]]], f32)
    radii = np.ones((1, 2), np.int32)
    shade_forward(np.ones((1, 3), f32), sh, np.zeros(3, f32), radii, 0, colors)
    np.testing.assert_allclose(colors[0], [0, 0.5, 0.5 + 3 * 0.28209479], rtol=1e-6)
