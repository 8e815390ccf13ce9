"""Bundle adjustment of cameras whose poses and focal lengths are known approximately.

The bundle adjuster of pycolmap's wheel takes priors of positions alone. Here rotation, centre and
focal length each have one: the result maximises the posterior, and what the images do not
determine stays where it was. Levenberg-Marquardt on the Schur complement of the cameras; a camera's
parameters are a rotation vector (left of its rotation), its centre, and the logarithm of its focal
length relative to the prior's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stages.scenes.cameras import Array, Camera, rigid, rotation_from_vector, rotation_vector

_SIZE = 7  # parameters of a camera
_MEDIAN = np.sqrt(2 * np.log(2))  # of the length of two normal coordinates of unit deviation
_MIN_SIGMA = 1e-6  # of a parameter that does not move; its weight stays finite
_MAX_STEPS, _LEAST_DECREASE = 40, 1e-5  # a relative decrease of the cost


@dataclass(frozen=True)
class PoseSigma:
    """Standard deviations of the initial cameras, equal for all."""

    rotation_deg: float  # of each rotation angle
    centre: float  # of each coordinate, world units
    focal: float  # as a share of the focal length

    @property
    def vector(self) -> Array:
        """By parameter, [7]: radians, world units, share."""
        return np.maximum(self._values, _MIN_SIGMA)

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which parameters move, [7]: those with a deviation."""
        return self._values > 0

    @property
    def _values(self) -> Array:
        values = [np.radians(self.rotation_deg)] * 3 + [self.centre] * 3 + [self.focal]
        return np.array(values, np.float64)


@dataclass(frozen=True, eq=False)
class Observations:
    """Pixels of points in cameras; a point has at most one in each."""

    point: NDArray[np.int64]  # [O], index
    camera: NDArray[np.int64]  # [O], index
    pixel: Array  # [O, 2], px


@dataclass(frozen=True, eq=False)
class PriorAdjustment:
    """The adjusted cameras and points."""

    cameras: dict[str, Camera]
    points: Array  # [P, 3]
    error_px: float  # median reprojection error
    noise_px: float  # standard deviation of a pixel's coordinate, from the residuals
    covariance: Array  # [C, 7, 7] of the cameras' parameters
    relative_covariance: Array  # [C, 7, 7], after the best similarity of all cameras
    focal_covariance: Array  # [C, C] of the logarithms of the focal lengths
    moved: Array  # [C, 7] parameters, from the prior

    def pose_covariance(self) -> dict[str, Array]:
        """Covariances [6, 6] after the best similarity, along each camera's own axes."""
        blocks = {}
        for k, (name, camera) in enumerate(self.cameras.items()):
            axes = np.eye(6)
            axes[3:, 3:] = camera.cam_from_world[:3, :3]
            covariance = axes @ self.relative_covariance[k, :6, :6] @ axes.T
            blocks[name] = (covariance + covariance.T) / 2
        return blocks

    def focal_shares(self, sigma: PoseSigma) -> Array:
        """Shares [C] of the priors' deviation that focal lengths have left, ascending.

        They are those of independent combinations of the focal lengths: where cameras face in one
        direction, the images determine the ratios of all, and leave their common factor.
        """
        variances = np.linalg.eigvalsh(self.focal_covariance) / sigma.vector[6] ** 2
        return np.sqrt(np.maximum(variances, 0.0))


def adjust_to_priors(
    cameras: Mapping[str, Camera],
    start: Mapping[str, Camera],
    points: Array,  # [P, 3]
    observed: Observations,
    sigma: PoseSigma,
    scale_px: float,
    noise_px: float = 1.0,
) -> PriorAdjustment:
    """Adjust cameras and points, from `start` and `points`.

    Args:
        cameras: the priors by name.
        start: where the adjustment starts, by name.
        points: initial points.
        observed: their pixels; cameras are numbered in the order of `cameras`.
        sigma: of the priors.
        scale_px: residuals above it lose weight (Cauchy's loss).
        noise_px: standard deviation of a pixel's coordinate, against which priors are weighed.
    """
    state = _State.of(cameras, start, points)
    weights = noise_px / sigma.vector
    damping, system = 1e-4, _System(state, observed, weights, scale_px, sigma.free)
    for _ in range(_MAX_STEPS):
        step = system.step(damping)
        trial = _System(state.moved(*step), observed, weights, scale_px, sigma.free)
        if not trial.cost < system.cost:
            damping *= 8
            if damping > 1e8:
                break
            continue
        decrease = 1 - trial.cost / system.cost
        state, system, damping = trial.state, trial, max(damping / 6, 1e-9)
        if decrease < _LEAST_DECREASE:
            break
    whole = noise_px**2 * system.covariance()
    fitted = _similarity_free(state)
    return PriorAdjustment(
        state.cameras(),
        state.points,
        float(np.median(system.error_px)) if len(system.error_px) else 0.0,
        system.noise_px(),
        _blocks(whole),
        _blocks(fitted @ whole @ fitted.T),
        whole[6::_SIZE, 6::_SIZE],
        state.offsets(),
    )


@dataclass(frozen=True, eq=False)
class _State:
    """Cameras as arrays: priors, and the current values."""

    prior: Mapping[str, Camera]
    rotations: Array  # [C, 3, 3]
    centres: Array  # [C, 3]
    log_focal: Array  # [C], relative to the prior
    points: Array  # [P, 3]

    @classmethod
    def of(
        cls, prior: Mapping[str, Camera], start: Mapping[str, Camera], points: Array
    ) -> "_State":
        begin = [start[name] for name in prior]
        ratios = [start[name].K[0, 0] / camera.K[0, 0] for name, camera in prior.items()]
        return cls(
            prior,
            np.stack([camera.cam_from_world[:3, :3] for camera in begin]),
            np.stack([camera.centre for camera in begin]),
            np.log(ratios),
            points,
        )

    def moved(self, of_cameras: Array, of_points: Array) -> "_State":
        """The state after a step of the cameras [C, 7] and of the points [P, 3]."""
        turns = np.stack([rotation_from_vector(vector) for vector in of_cameras[:, :3]])
        return replace(
            self,
            rotations=turns @ self.rotations,
            centres=self.centres + of_cameras[:, 3:6],
            log_focal=self.log_focal + of_cameras[:, 6],
            points=self.points + of_points,
        )

    def offsets(self) -> Array:
        """Parameters [C, 7] relative to the prior."""
        before = [camera.cam_from_world[:3, :3] for camera in self.prior.values()]
        turns = [
            rotation_vector(now @ then.T) for now, then in zip(self.rotations, before, strict=True)
        ]
        shifts = self.centres - np.stack([camera.centre for camera in self.prior.values()])
        return np.concatenate([np.stack(turns), shifts, self.log_focal[:, None]], axis=1)

    def intrinsics(self) -> tuple[Array, Array, Array]:
        """Focal lengths [C, 2], principal points [C, 2] and skews [C]."""
        K = np.stack([camera.K for camera in self.prior.values()])
        factor = np.exp(self.log_focal)
        return K[:, [0, 1], [0, 1]] * factor[:, None], K[:, :2, 2], K[:, 0, 1] * factor

    def cameras(self) -> dict[str, Camera]:
        adjusted = {}
        for k, (name, camera) in enumerate(self.prior.items()):
            K = camera.K.copy()
            K[:2, :2] *= np.exp(self.log_focal[k])
            pose = rigid(self.rotations[k], -self.rotations[k] @ self.centres[k])
            adjusted[name] = replace(camera, K=K, cam_from_world=pose)
        return adjusted


class _System:
    """Residuals of a state and its normal equations."""

    def __init__(
        self,
        state: _State,
        observed: Observations,
        weights: Array,
        scale_px: float,
        free: NDArray[np.bool_],
    ) -> None:
        self.state, self.observed = state, observed
        camera, point = observed.camera, observed.point
        rotation = state.rotations[camera]  # [O, 3, 3]
        offset = state.points[point] - state.centres[camera]
        in_camera = (rotation @ offset[..., None])[..., 0]
        front = in_camera[:, 2] > 1e-6
        depth = np.where(front, in_camera[:, 2], 1.0)
        focal, centre, skew = (values[camera] for values in state.intrinsics())
        x, y = in_camera[:, 0] / depth, in_camera[:, 1] / depth
        bent = np.stack([focal[:, 0] * x + skew * y, focal[:, 1] * y], axis=1)
        residual = bent + centre - observed.pixel
        squared = np.where(front, np.square(residual).sum(axis=1), 1e6)
        self.error_px = np.sqrt(squared)
        self.prior = state.offsets() * weights
        loss = scale_px**2 * np.log1p(squared / scale_px**2)
        self.cost = float(loss.sum() + np.square(self.prior).sum())
        # What the normal equations need.
        self._weights = weights
        self._residual = residual
        self._robust = np.where(front, 1 / (1 + squared / scale_px**2), 0.0)
        by_ray = np.zeros((len(camera), 2, 3))
        by_ray[:, 0, 0], by_ray[:, 0, 1], by_ray[:, 1, 1] = focal[:, 0], skew, focal[:, 1]
        by_ray[:, :, 2] = -bent
        by_ray /= depth[:, None, None]
        across = np.zeros((len(camera), 3, 3))  # derivative by the rotation vector: -[X]x
        across[:, 0, 1], across[:, 0, 2] = in_camera[:, 2], -in_camera[:, 1]
        across[:, 1, 0], across[:, 1, 2] = -in_camera[:, 2], in_camera[:, 0]
        across[:, 2, 0], across[:, 2, 1] = in_camera[:, 1], -in_camera[:, 0]
        self._by_point = by_ray @ rotation  # [O, 2, 3]
        self._by_camera = np.concatenate(
            [by_ray @ across, -self._by_point, bent[..., None]], axis=2
        )  # [O, 2, 7]
        self._by_camera[..., ~free] = 0.0  # so that others do not move at all

    def noise_px(self) -> float:
        """Standard deviation of a pixel's coordinate: from the median residual, as of a normal one.

        Points fit their pixels better than the true points would, by their three parameters.
        """
        count = len(self.observed.point)
        if not count:
            return 1.0
        free = max(2 * count - 3 * len(self.state.points), 1)
        return float(np.median(self.error_px) / _MEDIAN * np.sqrt(2 * count / free))

    def step(self, damping: float) -> tuple[Array, Array]:
        """Step of the cameras [C, 7] and of the points [P, 3] at a damping."""
        cameras, points, mixed, of_cameras, of_points = self._normal()
        diagonal = np.arange(3)
        points[:, diagonal, diagonal] *= 1 + damping
        inverse = _inverse(points)
        reduced, spread = self._reduced(cameras, mixed, inverse)
        own = np.arange(len(reduced))
        reduced[own, own] += damping * cameras[:, np.arange(_SIZE), np.arange(_SIZE)].ravel()
        right = of_cameras.ravel() - np.tensordot(spread, of_points, ((0, 2), (0, 1)))
        camera_step = np.linalg.solve(reduced, right)
        rest = of_points - camera_step @ mixed
        point_step = (inverse @ rest[..., None])[..., 0]
        return camera_step.reshape(-1, _SIZE), point_step

    def covariance(self) -> Array:
        """Covariance [7C, 7C] of the cameras' parameters, if errors are 1 px."""
        cameras, points, mixed, _, _ = self._normal()
        reduced, _ = self._reduced(cameras, mixed, _inverse(points))
        return np.linalg.inv(reduced)

    def _normal(self) -> tuple[Array, Array, Array, Array, Array]:
        """Blocks [C, 7, 7], [P, 3, 3], [P, 7C, 3] and gradients [C, 7], [P, 3], negated."""
        camera, point = self.observed.camera, self.observed.point
        count, size = len(self.state.centres), len(self.state.points)
        weighted = self._robust[:, None, None] * self._by_camera
        mixed = np.zeros((size, count, _SIZE, 3))
        mixed[point, camera] = weighted.transpose(0, 2, 1) @ self._by_point
        cameras = _sums(weighted.transpose(0, 2, 1) @ self._by_camera, camera, count)
        diagonal = np.arange(_SIZE)
        cameras[:, diagonal, diagonal] += np.square(self._weights)
        weighted_points = self._robust[:, None, None] * self._by_point
        points = _sums(weighted_points.transpose(0, 2, 1) @ self._by_point, point, size)
        residual = self._residual[..., None]
        of_cameras = -_sums((weighted.transpose(0, 2, 1) @ residual)[..., 0], camera, count)
        of_cameras -= self.prior * self._weights
        of_points = -_sums((weighted_points.transpose(0, 2, 1) @ residual)[..., 0], point, size)
        return cameras, points, mixed.reshape(size, count * _SIZE, 3), of_cameras, of_points

    @staticmethod
    def _reduced(cameras: Array, mixed: Array, inverse: Array) -> tuple[Array, Array]:
        """The Schur complement [7C, 7C], and the points' share of it [P, 7C, 3]."""
        spread = mixed @ inverse
        reduced = -np.tensordot(spread, mixed, ((0, 2), (0, 2)))
        for k, block in enumerate(cameras):
            own = slice(k * _SIZE, (k + 1) * _SIZE)
            reduced[own, own] += block
        return reduced, spread


def _similarity_free(state: _State) -> Array:
    """Matrix [7C, 7C] that takes from errors of the cameras' parameters their best similarity.

    It is that of `fit_sim3_from_cameras`: the rotation of the orientations, then scale and
    translation of the centres.
    """
    count = len(state.centres)
    offsets = state.centres - state.centres.mean(axis=0)
    rotation = np.zeros((count, _SIZE, 3))  # what a world's rotation does to the parameters
    rotation[:, :3] = -state.rotations
    rotation[:, 3:6] = -_cross(offsets)
    by_orientation = np.zeros((count, _SIZE, 3))
    by_orientation[:, :3] = -state.rotations / count
    rest = np.zeros((count, _SIZE, 4))
    rest[:, 3:6, :3], rest[:, 3:6, 3] = np.eye(3), offsets
    rest = rest.reshape(-1, 4)
    whole = np.eye(count * _SIZE)
    without = whole - rotation.reshape(-1, 3) @ by_orientation.reshape(-1, 3).T
    return (whole - rest @ np.linalg.pinv(rest)) @ without


def _cross(vectors: Array) -> Array:
    """Matrices [N, 3, 3] of the cross products with vectors [N, 3]."""
    x, y, z = vectors.T
    zero = np.zeros(len(vectors))
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)


def _blocks(whole: Array) -> Array:
    """The cameras' own blocks [C, 7, 7] of a matrix [7C, 7C]."""
    count = len(whole) // _SIZE
    each = np.arange(count)
    return whole.reshape(count, _SIZE, count, _SIZE)[each, :, each]


def _inverse(blocks: Array) -> Array:
    """Inverses of the points' blocks [P, 3, 3]; rays that are parallel leave a depth open."""
    largest = np.trace(blocks, axis1=1, axis2=2)
    blocks[:, np.arange(3), np.arange(3)] += 1e-12 * largest[:, None] + 1e-12
    return np.linalg.inv(blocks)


def _sums(values: Array, index: NDArray[np.int64], count: int) -> Array:
    """Sums [count, ...] of `values` [O, ...] with the same index."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    columns = [np.bincount(index, column, count) for column in flat.T]
    return np.stack(columns, axis=1).astype(np.float64).reshape(count, *values.shape[1:])
