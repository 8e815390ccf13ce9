"""Writes the embedded capture: images of a furnished room by a stereo camera on an arc.

The lens of `LEFT/` has distortion, that of `RIGHT/` has none; the evaluation set is by a third
camera in the same world frame. The same seed gives the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stages.scenes.cameras import Array, Camera, look_at
from stages.scenes.colmap_lenses import Lens, PosedImage, write_posed
from stages.scenes.demo import raytrace
from stages.scenes.demo.config import DemoCaptureConfig
from stages.scenes.demo.light import light
from stages.scenes.demo.room import room
from stages.scenes.lenses.distortion import distort

_ARC_DEG = 70.0
_BASELINE = 0.16  # metres between the two lenses
_FIELD_OF_VIEW_DEG = 72.0  # horizontal
_POINTS_PER_VIEW = 120
_ROOM = 40  # a pair number that the study does not use: other textures


@dataclass(frozen=True, eq=False)
class Shot:
    """The camera and lens of one image."""

    camera: Camera  # its pinhole camera; the name is the image's
    distortion: tuple[float, ...]  # k1, k2, p1, p2; empty for a pinhole

    @property
    def lens(self) -> Lens:
        """COLMAP's intrinsics of the camera."""
        K, size = self.camera.K, (self.camera.width, self.camera.height)
        params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2], *self.distortion)
        return Lens("OPENCV" if self.distortion else "PINHOLE", tuple(map(float, params)), *size)

    def undistort(self, pixels: Array) -> Array:
        """Pixels [N, 2] of the image to those of the pinhole camera."""
        if not self.distortion:
            return pixels
        K = self.camera.K
        points = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
        return undistorted(points, np.array([*self.distortion, 0.0])) * K[[0, 1], [0, 1]] + K[:2, 2]


def write_capture(config: DemoCaptureConfig, folder: Path, eval_folder: Path) -> None:
    """Trace the capture into `folder` and its evaluation set into `eval_folder`."""
    meshes, textures = room(_ROOM, config.seed)
    geometry = raytrace.join(meshes)
    world = raytrace.build_world(geometry, light(geometry), raytrace.atlas(textures))
    sets = ((folder, capture_shots(config)), (eval_folder, eval_shots(config)))
    for number, (target, shots) in enumerate(sets):
        _write(world, list(shots), config, target, np.random.default_rng([config.seed, number]))


def capture_shots(config: DemoCaptureConfig) -> Iterator[Shot]:
    """Both lenses at every position of the arc."""
    size = (config.width_px, config.height_px)
    for side, offset, distortion in (
        ("LEFT", -_BASELINE / 2, config.distortion),
        ("RIGHT", _BASELINE / 2, ()),
    ):
        for k in range(config.photographs):
            share = k / (config.photographs - 1)
            pose = _pose(share, 1.35 + 0.35 * np.sin(2.6 * k), offset)
            yield Shot(Camera(f"{side}/{k:03d}.jpg", _intrinsics(*size), pose, *size), distortion)


def eval_shots(config: DemoCaptureConfig) -> Iterator[Shot]:
    """Positions between those of the capture, at other heights and a smaller size."""
    size = (config.width_px * 3 // 4, config.height_px * 3 // 4)
    for k in range(config.eval_photographs):
        pose = _pose((k + 0.8) / (config.eval_photographs + 0.6), 1.25 + 0.25 * np.cos(1.7 * k), 0)
        yield Shot(Camera(f"{k:03d}.jpg", _intrinsics(*size), pose, *size), ())


def undistorted(points: Array, coefficients: Array) -> Array:
    """Undistorted image-plane points [N, 2] of distorted ones; coefficients k1 k2 p1 p2 k3."""
    ideal = points
    for _ in range(30):
        ideal = ideal + points - distort(ideal, coefficients)
    return ideal


def _pose(share: float, height: float, offset: float) -> Array:
    """cam_from_world of a camera on the arc, moved to its right by `offset` metres."""
    angle = np.radians(_ARC_DEG) * (share - 0.5)
    eye = np.array([2.3 * np.sin(angle), height, 0.3 + 2.3 * np.cos(angle)])
    pose = look_at(eye, [0.6 * np.sin(angle), 1.05, -1.6], [0, 1, 0])
    pose[0, 3] -= offset
    return pose


def _intrinsics(width: int, height: int) -> Array:
    focal = 0.5 * width / np.tan(np.radians(_FIELD_OF_VIEW_DEG) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def _write(
    world: raytrace.World,
    shots: Sequence[Shot],
    config: DemoCaptureConfig,
    folder: Path,
    rng: np.random.Generator,
) -> None:
    posed, points, colors = [], [], []
    for number, shot in enumerate(shots):
        camera = shot.camera
        undistort: Callable[[Array], Array] = shot.undistort
        image, _ = raytrace.trace(world, camera, config.samples, config.seed + number, undistort)
        path = folder / "images" / camera.name
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = np.rint(image * 255).astype(np.uint8)
        Image.fromarray(levels).save(path, quality=95, subsampling=0)
        posed.append(PosedImage(camera.name, shot.lens, camera.cam_from_world))
        pixels = rng.uniform([0, 0], [camera.width, camera.height], (_POINTS_PER_VIEW, 2))
        surface, color = raytrace.hits(world, camera, pixels)
        points.append(surface)
        colors.append(np.rint(255 * color).astype(np.uint8))
    write_posed(folder / "sparse" / "0", posed, np.concatenate(points), np.concatenate(colors))
