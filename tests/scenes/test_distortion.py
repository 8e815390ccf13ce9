"""Lens distortion against COLMAP's camera models and against an analytic image."""

import numpy as np
import pycolmap
import pytest

from stages.scenes.lenses.distortion import distort, ideal_intrinsics, undistort, valid_pixels

COEFFICIENTS = [
    (-0.046, 0.14, 0.0006, -0.0007, 0.0),
    (0.1, -0.05, 0.0, 0.01, 0.02),
    (-0.2, 0.03, -0.01, 0.0, 0.0),
]


@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_distortion_is_that_of_colmaps_full_opencv_model(coefficients: tuple[float, ...]) -> None:
    k1, k2, p1, p2, k3 = coefficients
    camera = pycolmap.Camera(
        model="FULL_OPENCV",
        width=100,
        height=100,
        params=[1, 1, 0, 0, k1, k2, p1, p2, k3, 0, 0, 0],
    )
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
    rays = np.column_stack([points, np.ones(len(points))])
    expected = camera.img_from_cam(rays)
    np.testing.assert_allclose(distort(points, np.array(coefficients)), expected, atol=1e-12)


def image(ideal: np.ndarray) -> np.ndarray:
    """A smooth scene at infinity as a function of ideal plane coordinates [..., 2]."""
    x, y = ideal[..., 0], ideal[..., 1]
    return np.stack([np.sin(7 * x + 2 * y), np.cos(5 * y - x), np.sin(9 * x * y + 3 * x)], -1) / 2


def plane_points(K: np.ndarray, width: int, height: int) -> np.ndarray:
    """Inverse of K at pixel centres, [H, W, 2]."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    pixels = np.stack([columns, rows, np.ones_like(rows)], -1)
    return (pixels @ np.linalg.inv(K).T)[..., :2]


def undistorted_points(distorted: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Inverse of `distort` by fixed-point iteration."""
    ideal = distorted
    for _ in range(100):
        ideal = ideal + distorted - distort(ideal, coefficients)
    return ideal


@pytest.mark.parametrize("skew", [0.0, 4.0])
@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_undistorting_a_image_gives_the_pinhole_image(
    coefficients: tuple[float, ...], skew: float
) -> None:
    """Bilinear reading of a smooth image errs by far less than a wrong sign or order would."""
    K = np.array([[110.0, skew, 61], [0, 115, 83], [0, 0, 1]])
    width, height, bends = 120, 160, np.array(coefficients)
    distorted_image = image(undistorted_points(plane_points(K, width, height), bends))
    expected = image(plane_points(ideal_intrinsics(K), width, height))
    result = undistort(distorted_image.astype(np.float32), K, bends)
    inner = np.s_[20:-20, 15:-15]
    assert np.abs(result - expected)[inner].max() < 2e-3
    assert np.abs(distorted_image - expected)[inner].max() > 5e-3, "the case shows no distortion"


def test_an_image_without_distortion_is_returned_itself() -> None:
    image = np.random.default_rng(0).random((8, 6, 3), dtype=np.float32)
    K = np.array([[10.0, 0, 3], [0, 10, 4], [0, 0, 1]])
    assert undistort(image, K, np.zeros(5)) is image


def test_only_the_skew_leaves_the_intrinsics() -> None:
    K = np.array([[10.0, 2, 3], [0, 11, 4], [0, 0, 1]])
    assert ideal_intrinsics(K).tolist() == [[10, 0, 3], [0, 11, 4], [0, 0, 1]]
    assert K[0, 1] == 2


def test_pixels_from_outside_repeat_the_border() -> None:
    """Pincushion calibration: the corners look beyond the distorted image."""
    image = np.full((40, 40, 1), 0.7, np.float32)
    K = np.array([[20.0, 0, 20], [0, 20, 20], [0, 0, 1]])
    np.testing.assert_allclose(undistort(image, K, np.array([0.5, 0, 0, 0, 0])), 0.7, atol=1e-6)


@pytest.mark.parametrize("k", [-0.3, -0.8, 0.2, 0.5])
def test_valid_pixels_end_at_the_image_border_and_before_the_fold(k: float) -> None:
    """r + k r^3 turns back at 1 / sqrt(-3 k), and before that stretches tenfold."""
    K = np.array([[40.0, 0, 30], [0, 40, 40], [0, 0, 1]])
    result = valid_pixels(K, np.array([k, 0, 0, 0, 0]), 60, 80)
    plane = plane_points(K, 60, 80)
    radius = np.linalg.norm(plane, axis=-1)
    distorted = np.abs(40 * plane * (1 + k * radius**2)[..., None])
    expected = (distorted <= [30, 40]).all(-1)
    if k < 0:
        expected &= radius <= np.sqrt(0.9 / (-3 * k))
    assert (result != expected).mean() < 0.005
    assert 0.2 < expected.mean() < 0.99


@pytest.mark.parametrize("coefficients", [(0.0,) * 5, (-0.046, 0.14, 0.0006, -0.0007, 0.0)])
def test_usual_calibrations_leave_no_mask(coefficients: tuple[float, ...]) -> None:
    """The second is one of a real studio: its images lack a border of half a percent."""
    K = np.array([[1128.0, 0, 470], [0, 1128, 640], [0, 0, 1]])
    assert valid_pixels(K, np.array(coefficients), 940, 1280) is None
