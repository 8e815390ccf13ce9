"""Bundle adjustment with priors, against closed forms and finite differences."""

from dataclasses import replace

import numpy as np
import pytest
from pose_scene import cloud, project, ring

from stages.scenes.cameras import Camera, rotation_from_vector, rotation_vector
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses.prior_adjustment import (
    Observations,
    PoseSigma,
    PriorAdjustment,
    adjust_to_priors,
)

SIGMA = PoseSigma(rotation_deg=0.5, centre=0.03, focal=0.01)


def noisy(seed: int, sigma: PoseSigma = SIGMA) -> dict[str, Camera]:
    rng = np.random.default_rng(seed)
    cameras = {}
    for name, camera in ring().items():
        noise = sigma.vector * rng.standard_normal(7)
        rotation = rotation_from_vector(noise[:3]) @ camera.cam_from_world[:3, :3]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ (camera.centre + noise[3:6])
        K = camera.K.copy()
        K[[0, 1], [0, 1]] *= np.exp(noise[6])
        cameras[name] = Camera(name, K, pose, camera.width, camera.height)
    return cameras


def adjusted(
    priors: dict[str, Camera], noise_px: float, points: int = 100, seed: int = 0
) -> PriorAdjustment:
    rng = np.random.default_rng(seed)
    truth = cloud(0)[:points]
    pixels = [project(camera, truth) for camera in ring().values()]
    observed = Observations(
        np.tile(np.arange(points), len(priors)),
        np.repeat(np.arange(len(priors)), points),
        np.concatenate(pixels) + noise_px * rng.standard_normal((points * len(priors), 2)),
    )
    start = truth + 0.02 * rng.standard_normal(truth.shape)
    return adjust_to_priors(priors, priors, start, observed, SIGMA, 20.0, max(noise_px, 0.01))


def test_exact_pixels_leave_no_relative_error() -> None:
    result = adjusted(noisy(0), 0.0)
    assert result.error_px < 0.01
    cameras, truth = list(result.cameras.values()), list(ring().values())
    for a, b, c, d in zip(cameras, cameras[1:], truth, truth[1:], strict=False):
        found = a.cam_from_world[:3, :3] @ b.cam_from_world[:3, :3].T
        true = c.cam_from_world[:3, :3] @ d.cam_from_world[:3, :3].T
        np.testing.assert_allclose(found, true, atol=2e-4)
    focal = [camera.K[0, 0] for camera in cameras]
    np.testing.assert_allclose(focal, 480, rtol=1e-3)


def test_without_points_cameras_stay_at_their_priors() -> None:
    priors = noisy(1)
    nothing = np.zeros(0, np.int64)
    observed = Observations(nothing, nothing, np.zeros((0, 2)))
    result = adjust_to_priors(priors, priors, np.zeros((0, 3)), observed, SIGMA, 2.0)
    for name, camera in priors.items():
        np.testing.assert_allclose(
            result.cameras[name].cam_from_world, camera.cam_from_world, atol=1e-9
        )
    np.testing.assert_allclose(result.covariance[0], np.diag(SIGMA.vector**2), rtol=1e-9)


def test_prior_without_deviation_does_not_move() -> None:
    priors = noisy(2)
    held = PoseSigma(0.5, 0.03, 0.0)
    truth = cloud(0)
    pixels = np.concatenate([project(camera, truth) for camera in ring().values()])
    observed = Observations(
        np.tile(np.arange(len(truth)), 5), np.repeat(np.arange(5), len(truth)), pixels
    )
    result = adjust_to_priors(priors, priors, truth, observed, held, 5.0)
    for name, camera in priors.items():
        np.testing.assert_array_equal(result.cameras[name].K, camera.K)


def test_errors_are_as_large_as_the_covariance_says() -> None:
    """Over draws of noise and pixels, parameters in their standard deviations have length one."""
    lengths = []
    truth = ring()
    for seed in range(12):
        priors = noisy(seed)
        result = adjusted(priors, 0.5, 40, seed)
        for k, (name, camera) in enumerate(result.cameras.items()):
            shift = camera.centre - truth[name].centre
            covariance = result.covariance[k, 3:6, 3:6]
            lengths.append(shift @ np.linalg.solve(covariance, shift))
    assert 0.6 < np.mean(lengths) / 3 < 1.6


def test_relative_errors_are_as_large_as_the_covariance_says() -> None:
    """After the best similarity, in each camera's axes; common motions of the priors are gone."""
    lengths, common = [], []
    truth = ring()
    for seed in range(12):
        result = adjusted(noisy(seed), 0.5, 40, seed)
        move, _ = fit_sim3_from_cameras(list(truth.values()), list(result.cameras.values()))
        for k, (name, covariance) in enumerate(result.pose_covariance().items()):
            found, true = result.cameras[name], move.apply_camera(truth[name])
            rotation = found.cam_from_world[:3, :3]
            error = np.concatenate(
                [
                    rotation_vector(true.cam_from_world[:3, :3] @ rotation.T),
                    rotation @ (true.centre - found.centre),
                ]
            )
            lengths.append(error @ np.linalg.solve(covariance, error) / 6)
            common.append(np.trace(covariance) / np.trace(result.covariance[k, :6, :6]))
    assert 0.6 < np.mean(lengths) < 1.6
    assert max(common) < 0.5


def test_noise_of_pixels_is_found() -> None:
    assert adjusted(noisy(3), 0.8).noise_px == pytest.approx(0.8, rel=0.15)


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (adjusted(noisy(4), 0.5) for _ in range(2))
    assert first.points.tobytes() == second.points.tobytes()
    assert first.covariance.tobytes() == second.covariance.tobytes()


def test_a_point_of_parallel_rays_leaves_the_covariance_finite() -> None:
    """Its depth is open: the block of its normal equations is singular."""
    cameras = dict(list(ring(4).items())[:1]) | {
        "copy": replace(next(iter(ring(4).values())), name="copy")
    }
    points = np.array([[0.1, 0.2, 0.3]] * 3) * [[1], [1e7], [1]]
    pixels = np.concatenate([camera.project(points)[0] for camera in cameras.values()])
    observed = Observations(np.tile(np.arange(3), 2), np.repeat([0, 1], 3), pixels)
    sigma = PoseSigma(20.0, 0.3, 0.1)
    adjusted = adjust_to_priors(cameras, cameras, points, observed, sigma, 3.0)
    assert np.isfinite(adjusted.covariance).all()
