"""Similarities between world frames, and the normalised frame that Gaussians are trained in.

A similarity `b_from_a` maps x_b = scale * rotation @ x_a + translation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import (
    Array,
    Camera,
    quat_from_rotation,
    rigid,
    rotation_angle_deg,
    rotation_from_quat,
)

# An origin this many scene sizes away is that of map coordinates, not the scene's.
_MAX_ORIGIN_DISTANCE = 10.0
# Points this many camera distances away would cost float32 the camera positions.
_MAX_POINT_DISTANCE = 1e3
_PARALLEL = 1e-3  # mean squared sine of the angles between axes that count as one direction
_ROUNDING, _MIN_DISTANCE = 1e-14, 1e-12  # relative to the coordinates; world units
# Distance from the origin in extents of the cameras, and least and largest extent in world
# units, of a world that needs no recentring.
_MAX_OFFSET, _MIN_EXTENT, _MAX_EXTENT = 1e3, 0.1, 1e3


@dataclass(frozen=True, eq=False)
class Sim3:
    """A similarity transform; variables that hold one are named `b_from_a`."""

    scale: float
    rotation: Array  # [3, 3]
    translation: Array  # [3]

    @staticmethod
    def identity() -> "Sim3":
        """The transform that changes nothing."""
        return Sim3(1.0, np.eye(3), np.zeros(3))

    @property
    def matrix(self) -> Array:
        """Homogeneous form, [4, 4]."""
        return rigid(self.scale * self.rotation, self.translation)

    def apply(self, points: Array) -> Array:
        """Points [..., 3] of frame a in frame b."""
        return self.scale * points @ self.rotation.T + self.translation

    def apply_camera(self, camera: Camera) -> Camera:
        """A camera of frame a in frame b: same image, rigid pose, depths times `scale`."""
        rotation = camera.cam_from_world[:3, :3] @ self.rotation.T
        return camera.moved(rigid(rotation, -rotation @ self.apply(camera.centre)))

    def inverse(self) -> "Sim3":
        """a_from_b."""
        rotation = self.rotation.T
        return Sim3(1 / self.scale, rotation, -rotation @ self.translation / self.scale)

    def compose(self, first: "Sim3") -> "Sim3":
        """c_from_a, where self is c_from_b and `first` is b_from_a."""
        return Sim3(
            self.scale * first.scale,
            self.rotation @ first.rotation,
            self.apply(first.translation),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON: scale, rotation_wxyz, translation."""
        return {
            "scale": float(self.scale),
            "rotation_wxyz": quat_from_rotation(self.rotation).tolist(),
            "translation": self.translation.tolist(),
        }

    @staticmethod
    def from_dict(value: dict[str, Any]) -> "Sim3":
        """Inverse of `to_dict`. Raises ValueError, TypeError or KeyError for anything else."""
        quat, translation = (
            np.array(value[key], np.float64) for key in ("rotation_wxyz", "translation")
        )
        scale = float(value["scale"])
        is_valid = (
            quat.shape == (4,) and translation.shape == (3,) and np.isfinite(translation).all()
        )
        if not (is_valid and 0 < scale < np.inf and 0.5 < np.linalg.norm(quat) < 2):
            raise ValueError("not a similarity")
        return Sim3(scale, rotation_from_quat(quat), translation)


_FLIP = Sim3(1.0, np.diag([1.0, -1.0, -1.0]), np.zeros(3))  # 180 degrees about x


def fit_sim3(
    points_a: Array, points_b: Array, rotation: Array | None = None, scale: float | None = None
) -> Sim3:
    """Least-squares b_from_a for points [N, 3] in both frames (Umeyama 1991).

    With a known `rotation` only scale and translation are fitted, for which two points, or points
    on a line, are enough; without it points on a line raise UserError. A known `scale` is kept.
    """
    mean_a, mean_b = points_a.mean(0), points_b.mean(0)
    offsets_a, offsets_b = points_a - mean_a, points_b - mean_b
    if rotation is None:
        for points, offsets in ((points_a, offsets_a), (points_b, offsets_b)):
            spans = np.linalg.svd(offsets, compute_uv=False)
            if len(points) < 3 or spans[1] <= 1e-9 * spans[0]:
                raise UserError(
                    "similarity between frames",
                    f"{len(points)} points on one line",
                    expected="at least three points in a plane, or a known rotation",
                )
        rotation = _nearest_rotation(offsets_b.T @ offsets_a)
    # One point, or points equal but for rounding, do not determine the scale.
    has_extent = all(
        np.square(offsets).sum() > len(points) * (_ROUNDING * np.abs(points).max()) ** 2
        for points, offsets in ((points_a, offsets_a), (points_b, offsets_b))
    )
    if scale is None and has_extent:
        scale = (offsets_b * (offsets_a @ rotation.T)).sum() / np.square(offsets_a).sum()
    scale = 1.0 if scale is None else scale
    return Sim3(float(scale), rotation, mean_b - scale * rotation @ mean_a)


def fit_sim3_from_cameras(
    cameras_a: Sequence[Camera], cameras_b: Sequence[Camera]
) -> tuple[Sim3, dict[str, float]]:
    """Best b_from_a for two poses of the same cameras, with its residuals.

    The rotation is the mean of the per-camera rotations, so two cameras, or cameras on a line, are
    enough; scale and translation then follow from the centres. The rotation of the orientations
    also places held-out cameras more accurately than one fitted to the centres.
    Residuals: centre_rmse (units of b), centre_rmse_relative (share of the cameras' spread) and
    rotation_mean_deg.
    """
    rotations = [
        b.cam_from_world[:3, :3].T @ a.cam_from_world[:3, :3]
        for a, b in zip(cameras_a, cameras_b, strict=True)
    ]
    rotation = _nearest_rotation(np.sum(rotations, axis=0))
    centres_a = np.stack([camera.centre for camera in cameras_a])
    centres_b = np.stack([camera.centre for camera in cameras_b])
    b_from_a = fit_sim3(centres_a, centres_b, rotation)
    rmse = _root_mean_square(b_from_a.apply(centres_a) - centres_b)
    spread = _root_mean_square(centres_b - centres_b.mean(0))
    angles = [rotation_angle_deg(camera_rotation, rotation) for camera_rotation in rotations]
    return b_from_a, {
        "centre_rmse": rmse,
        "centre_rmse_relative": rmse / spread if spread > 0 else 0.0,
        "rotation_mean_deg": float(np.mean(angles)),
    }


def normalisation(cameras: Sequence[Camera], points: Array) -> tuple[Sim3, float]:
    """norm_from_world and the scene scale, by the recipe of gsplat's example trainer.

    Cameras decide up, centre and scale (their median distance becomes 1); then the points'
    principal axes are aligned, flattest axis last, and the scene is flipped when its points
    lie mostly on the wrong side. The scene scale is the largest distance of a camera from the
    cameras' mean, in the normalised frame. Fewer than four points skip the principal axes.

    The recipe's centre depends on the world's origin. If the origin is far from the scene, as in
    map coordinates, the point that the cameras look at replaces it; if the cameras stand at the
    point that they look at, the points give the scale; and points far from the cameras do not
    move the centre.
    """
    norm_from_world = _by_recipe(cameras, points, is_exact=False)
    heights = norm_from_world.apply(points)[:, 2]
    if len(points) >= 4 and np.median(heights) > heights.mean():
        norm_from_world = _FLIP.compose(norm_from_world)
    centres = norm_from_world.apply(np.stack([camera.centre for camera in cameras]))
    distances = np.linalg.norm(centres - centres.mean(0), axis=1)
    least = max(1e-6, _ROUNDING * float(np.linalg.norm(norm_from_world.translation)))
    return norm_from_world, float(distances.max()) if distances.max() > least else 1.0


def gsplat_normalisations(cameras: Sequence[Camera], points: Array) -> list[Sim3]:
    """norm_from_world of gsplat's example trainer to the letter, and its variants.

    The first is the recipe of gsplat 1.5 and later, the second that of versions without the flip of
    scenes that are upside down. The others are these, rotated by 180 degrees about z: an
    eigenvector may have either sign. Without four points there is one.
    """
    # The trainer reads points in single precision.
    points = points.astype(np.float32).astype(np.float64)
    plain = _by_recipe(cameras, points, is_exact=True)
    if len(points) < 4:
        return [plain]
    heights = plain.apply(points)[:, 2]
    flipped = _FLIP.compose(plain) if np.median(heights) > heights.mean() else plain
    about_z = Sim3(1.0, np.diag([-1.0, -1.0, 1.0]), np.zeros(3))
    return [flipped, plain, about_z.compose(flipped), about_z.compose(plain)]


def point_nearest_to_axes(cameras: Sequence[Camera], middle: Array) -> Array:
    """The point [3] nearest to the optical axes, by least squares.

    Along directions in which the axes are almost parallel, as of cameras that all look one way, it
    keeps the coordinates of `middle` [3].
    """
    centres = np.stack([camera.centre for camera in cameras])
    forwards = np.stack([camera.cam_from_world[2, :3] for camera in cameras])
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    offset = (across @ (centres - middle)[:, :, None])[..., 0].mean(axis=0)
    inverse = np.linalg.pinv(across.mean(axis=0), rcond=_PARALLEL, hermitian=True)
    return middle + inverse @ offset


def recentring(centres: Sequence[Array]) -> Sim3 | None:
    """near_from_world for cameras whose coordinates lose digits in float32 or an adjustment.

    In the new frame the cameras surround the origin at a median distance of 1. None for a world
    that needs none: near its origin and in usual units.
    """
    middle, extent = _extent(np.stack(centres), np.empty((0, 3)))
    offset = float(np.linalg.norm(middle))
    extent = extent if extent > 0 else 1.0  # a single camera has no extent
    if offset <= _MAX_OFFSET * extent and _MIN_EXTENT <= extent <= _MAX_EXTENT:
        return None
    return Sim3(1 / extent, np.eye(3), -middle / extent)


def _root_mean_square(offsets: Array) -> float:
    """Root mean square of the lengths of offsets [N, 3]."""
    return float(np.sqrt(np.square(offsets).sum(1).mean()))


def _by_recipe(cameras: Sequence[Camera], points: Array, *, is_exact: bool) -> Sim3:
    """The normalisation without the flip; `is_exact` keeps to gsplat in any world."""
    by_cameras = _similarity_from_cameras(cameras, points, is_exact)
    if len(points) < 4:
        return by_cameras
    return _aligned_to_axes(by_cameras.apply(points), is_exact).compose(by_cameras)


def _similarity_from_cameras(cameras: Sequence[Camera], points: Array, is_exact: bool) -> Sim3:
    centres = np.stack([camera.centre for camera in cameras])
    forwards = np.stack([camera.cam_from_world[2, :3] for camera in cameras])
    up = -np.stack([camera.cam_from_world[1, :3] for camera in cameras]).mean(0)
    rotation = _rotation_between(up / max(np.linalg.norm(up), 1e-12), np.array([0.0, -1.0, 0.0]))
    middle, extent = _extent(centres, points)
    is_near = np.linalg.norm(middle) <= _MAX_ORIGIN_DISTANCE * extent
    origin = np.zeros(3) if is_near or is_exact else point_nearest_to_axes(cameras, middle)
    centres, forwards = (centres - origin) @ rotation.T, forwards @ rotation.T
    # Nearest point of each optical axis to the origin; their median is the focus.
    nearest = centres - (centres * forwards).sum(1, keepdims=True) * forwards
    focus = np.median(nearest, axis=0)
    distance = float(np.median(np.linalg.norm(centres - focus, axis=1)))
    if distance <= (0 if is_exact else 1e-6 * extent):
        distance = extent
    scale = 1 / distance if extent > 0 else 1.0
    return Sim3(scale, rotation, -scale * (focus + rotation @ origin))


def _extent(centres: Array, points: Array) -> tuple[Array, float]:
    """The median [3] of points, or else cameras, and the median distance from it.

    The distance is 0 when positions differ by no more than rounding.
    """
    middle = np.median(points if len(points) >= 4 else centres, axis=0)
    offsets = (positions - middle for positions in (centres, points) if len(positions))
    extent = max(float(np.median(np.linalg.norm(each, axis=1))) for each in offsets)
    rounding = max(_ROUNDING * np.linalg.norm(middle), _MIN_DISTANCE)
    return middle, extent if extent > rounding else 0.0


def _aligned_to_axes(points: Array, is_exact: bool) -> Sim3:
    """Principal axes to the coordinate axes, and the points' median to the origin.

    A median far from the cameras, whose distances are about 1, stays where it is, unless
    `is_exact`.
    """
    centre = np.median(points, axis=0)
    values, vectors = np.linalg.eigh(np.cov((points - centre).T))
    rotation = vectors[:, np.argsort(values)[::-1]].T
    if np.linalg.det(rotation) < 0:
        rotation[0] *= -1
    if np.linalg.norm(centre) > _MAX_POINT_DISTANCE and not is_exact:
        centre = np.zeros(3)
    return Sim3(1.0, rotation, -rotation @ centre)


def _nearest_rotation(matrix: Array) -> Array:
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def _rotation_between(unit_a: Array, unit_b: Array) -> Array:
    """The smallest rotation that takes one unit vector to another."""
    cosine = float(unit_a @ unit_b)
    if cosine < -1 + 1e-9:
        axis = np.linalg.svd(unit_a[None])[2][-1]
        return 2 * np.outer(axis, axis) - np.eye(3)
    x, y, z = np.cross(unit_a, unit_b)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)
