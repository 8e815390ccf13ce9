"""Pinhole cameras and rotations.

Conventions of the whole project: cameras are OpenCV's and COLMAP's (x right, y down, z forward),
quaternions are wxyz, and the centre of the first pixel lies at (0.5, 0.5). A transform `a_from_b`
takes points of frame b to frame a.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
_LARGEST = 1e12  # px or world units; float32 can hold its square


@dataclass(frozen=True, eq=False)
class Camera:
    """One pinhole camera without distortion."""

    name: str
    K: Array  # [3, 3], px
    cam_from_world: Array  # [4, 4], rigid
    width: int  # px
    height: int  # px

    @property
    def centre(self) -> Array:
        """Position of the camera in the world, [3]."""
        return -self.cam_from_world[:3, :3].T @ self.cam_from_world[:3, 3]

    @property
    def world_from_cam(self) -> Array:
        """Inverse of `cam_from_world`, [4, 4]."""
        inverse = np.eye(4)
        inverse[:3, :3] = self.cam_from_world[:3, :3].T
        inverse[:3, 3] = self.centre
        return inverse

    def moved(self, cam_from_world: Array) -> "Camera":
        """The same camera at another pose."""
        return replace(self, cam_from_world=np.asarray(cam_from_world, np.float64))

    def resized(self, width: int, height: int) -> "Camera":
        """The same view at another image size; pixel centres stay at +0.5."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return replace(self, K=scale @ self.K, width=width, height=height)

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points [N, 3] to pixels [N, 2] and depths [N] along z."""
        in_camera = points @ self.cam_from_world[:3, :3].T + self.cam_from_world[:3, 3]
        pixels = in_camera @ self.K.T
        return pixels[:, :2] / pixels[:, 2:], in_camera[:, 2]


def camera_fault(K: Array, cam_from_world: Array) -> str:
    """Why K [3, 3] and a pose [4, 4] are no valid pinhole camera; empty if they are.

    >>> camera_fault(np.diag([0.0, 9.0, 1.0]), np.eye(4))
    'a focal length of 0 px in K'
    """
    if not (np.isfinite(K).all() and np.isfinite(cam_from_world).all()):
        return "NaN or infinity in K or extrinsics"
    if max(np.abs(K).max(), np.abs(cam_from_world).max()) > _LARGEST:
        return f"numbers above {_LARGEST:g} in K or extrinsics"
    if min(K[0, 0], K[1, 1]) <= 0:
        return f"a focal length of {min(K[0, 0], K[1, 1]):g} px in K"
    if K[1, 0] or K[2, :2].any() or K[2, 2] != 1:
        return f"K with rows 2 and 3 of {K[1].tolist()} and {K[2].tolist()}"
    R = cam_from_world[:3, :3]
    if np.abs(R).max() > 2 or not np.allclose(R @ R.T, np.eye(3), atol=1e-3):
        return "extrinsics without a rotation matrix"
    if np.linalg.det(R) < 0:
        return "extrinsics that mirror the world (determinant -1)"
    return ""


def between(start: Camera, end: Camera, share: float) -> Camera:
    """`end` at a pose that is a share of the way from `start` to `end` (1: the pose of `end`).

    Centres are interpolated linearly, rotations along the shortest arc.
    """
    start_from_end = start.cam_from_world[:3, :3] @ end.cam_from_world[:3, :3].T
    quat = quat_from_rotation(start_from_end)
    length = np.linalg.norm(quat[1:])
    angle = 2 * np.arctan2(length, quat[0])
    back = rotation_from_vector((1 - share) * angle * quat[1:] / max(length, 1e-12))
    rotation = back @ end.cam_from_world[:3, :3]
    centre = (1 - share) * start.centre + share * end.centre
    return end.moved(rigid(rotation, -rotation @ centre))


def moved_aside(camera: Camera, distance: float, share: float) -> Camera:
    """The camera moved to its right by a share of a distance, rotated to look at the same point.

    That point lies ahead of the camera at this distance, world units.

    >>> camera = moved_aside(Camera("a", np.eye(3), np.eye(4), 2, 2), 4.0, 0.75)
    >>> np.allclose(camera.centre, [3, 0, 0])
    True
    >>> np.allclose(camera.cam_from_world @ [0, 0, 4, 1], [0, 0, 5, 1])
    True
    """
    rotation = rotation_from_vector([0, np.arctan(share), 0])
    step = rigid(rotation, rotation @ [-share * distance, 0, 0])
    return camera.moved(step @ camera.cam_from_world)


def rigid(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """A [4, 4] transform from a rotation [3, 3] and a translation [3]."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    return transform


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike) -> Array:
    """cam_from_world [4, 4] of a camera at `eye` that looks at `target`, with `up` upwards.

    >>> (look_at([0, 0, -2], [0, 0, 0], [0, -1, 0]) @ [0, 0, 0, 1]).tolist()
    [0.0, 0.0, 2.0, 1.0]
    """
    eye = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, np.float64))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rigid(rotation, -rotation @ eye)


def rotation_from_quat(quat: ArrayLike) -> Array:
    """Rotation [3, 3] of a quaternion wxyz [4] of any length.

    >>> rotation_from_quat([1, 0, 0, 0]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = np.asarray(quat, np.float64) / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quat_from_rotation(rotation: ArrayLike) -> Array:
    """Unit quaternion wxyz [4] with w >= 0 of a rotation [3, 3].

    By the eigenvectors of Bar-Itzhack (2000), stable at every angle.
    """
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rotation, np.float64)
    matrix = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    quat = np.linalg.eigh(matrix)[1][:, -1]
    return quat if quat[0] >= 0 else -quat


def rotation_from_vector(vector: ArrayLike) -> Array:
    """Rotation [3, 3] about `vector` [3] by its length in radians (Rodrigues)."""
    vector = np.asarray(vector, np.float64)
    half = np.linalg.norm(vector) / 2
    # sin(x)/x keeps the direction exact down to a zero rotation.
    return rotation_from_quat([np.cos(half), *(0.5 * np.sinc(half / np.pi) * vector)])


def rotation_vector(rotation: Array) -> Array:
    """Inverse of `rotation_from_vector`: axis times angle [3], at most pi long.

    >>> float(rotation_vector(rotation_from_vector([0.0, 0.3, 0.0]))[1].round(9))
    0.3
    """
    quat = quat_from_rotation(rotation)
    length = np.linalg.norm(quat[1:])
    # Near a zero rotation the angle is twice the quaternion's vector part.
    return quat[1:] * (2.0 if length < 1e-12 else 2 * np.arctan2(length, quat[0]) / length)


def rotation_angle_deg(rotation_a: Array, rotation_b: Array) -> float:
    """Angle between two rotations [3, 3], degrees in [0, 180]."""
    quat = quat_from_rotation(rotation_a @ rotation_b.T)
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(quat[1:]), quat[0])))


def mean_distance(cameras: Sequence[Camera]) -> float:
    """Mean distance between two of the cameras; 0 for one camera."""
    centres = np.stack([camera.centre for camera in cameras])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    return float(apart.sum() / max(len(centres) * (len(centres) - 1), 1))


def centre_distance(camera: Camera, other: Camera) -> float:
    """Distance of two centres, rounded: ties in a regular rig are ties on every machine."""
    return round(float(np.linalg.norm(camera.centre - other.centre)), 9)


def nearest_cameras(camera: Camera, others: Mapping[Key, Camera], count: int) -> list[Key]:
    """Keys of the `count` cameras (0: all) with the nearest centres, nearest first.

    Ties are broken by the angle between the cameras, then by the order of `others`.
    """

    def distance(name: Key) -> tuple[float, float]:
        other = others[name]
        angle_deg = rotation_angle_deg(camera.cam_from_world[:3, :3], other.cam_from_world[:3, :3])
        return centre_distance(camera, other), round(angle_deg, 6)

    return sorted(others, key=distance)[: count or None]
