"""Writes the embedded capture: a furnished room, photographed by a stereo camera on an arc.

`LEFT/` is taken through a lens with distortion, `RIGHT/` without; the evaluation set comes from a
third camera in the same world frame. The same seed gives the same bytes.
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
_BASELINE = 0.16  # metres between the eyes
_FIELD_OF_VIEW_DEG = 72.0  # horizontal
_POINTS_A_VIEW = 120
_ROOM = 40  # dressed unlike those of the study's pairs


@dataclass(frozen=True, eq=False)
class Shot:
    """One photograph to take."""

    camera: Camera  # its pinhole camera; the name is the image's
    bends: tuple[float, ...]  # k1, k2, p1, p2, or none

    @property
    def lens(self) -> Lens:
        """The camera as COLMAP states it."""
        K, size = self.camera.K, (self.camera.width, self.camera.height)
        params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2], *self.bends)
        return Lens("OPENCV" if self.bends else "PINHOLE", tuple(map(float, params)), *size)

    def ideal(self, pixels: Array) -> Array:
        """Pixels [N, 2] of the photograph to those of the pinhole camera."""
        if not self.bends:
            return pixels
        K = self.camera.K
        seen = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
        return undistorted(seen, np.array([*self.bends, 0.0])) * K[[0, 1], [0, 1]] + K[:2, 2]


def write_capture(config: DemoCaptureConfig, folder: Path, eval_folder: Path) -> None:
    """Trace the capture into `folder` and its evaluation set into `eval_folder`."""
    meshes, textures = room(_ROOM, config.seed)
    geometry = raytrace.join(meshes)
    world = raytrace.dress(geometry, light(geometry), raytrace.atlas(textures))
    sets = ((folder, capture_shots(config)), (eval_folder, eval_shots(config)))
    for number, (target, shots) in enumerate(sets):
        _write(world, list(shots), config, target, np.random.default_rng([config.seed, number]))


def capture_shots(config: DemoCaptureConfig) -> Iterator[Shot]:
    """Both eyes at every place of the arc."""
    size = (config.width_px, config.height_px)
    for side, offset, bends in (
        ("LEFT", -_BASELINE / 2, config.distortion), ("RIGHT", _BASELINE / 2, ())
    ):  # fmt: skip
        for k in range(config.photographs):
            share = k / (config.photographs - 1)
            pose = _pose(share, 1.35 + 0.35 * np.sin(2.6 * k), offset)
            yield Shot(Camera(f"{side}/{k:03d}.jpg", _intrinsics(*size), pose, *size), bends)


def eval_shots(config: DemoCaptureConfig) -> Iterator[Shot]:
    """Places between those of the capture, at other heights and a smaller size."""
    size = (config.width_px * 3 // 4, config.height_px * 3 // 4)
    for k in range(config.eval_photographs):
        pose = _pose((k + 0.8) / (config.eval_photographs + 0.6), 1.25 + 0.25 * np.cos(1.7 * k), 0)
        yield Shot(Camera(f"{k:03d}.jpg", _intrinsics(*size), pose, *size), ())


def undistorted(seen: Array, coefficients: Array) -> Array:
    """Ideal image-plane points [N, 2] of distorted ones; coefficients k1 k2 p1 p2 k3."""
    ideal = seen
    for _ in range(30):
        ideal = ideal + seen - distort(ideal, coefficients)
    return ideal


def _pose(share: float, height: float, aside: float) -> Array:
    """cam_from_world of a camera on the arc, moved to its right by `aside` metres."""
    angle = np.radians(_ARC_DEG) * (share - 0.5)
    eye = np.array([2.3 * np.sin(angle), height, 0.3 + 2.3 * np.cos(angle)])
    pose = look_at(eye, [0.6 * np.sin(angle), 1.05, -1.6], [0, 1, 0])
    pose[0, 3] -= aside
    return pose


def _intrinsics(width: int, height: int) -> Array:
    focal = 0.5 * width / np.tan(np.radians(_FIELD_OF_VIEW_DEG) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def _write(
    world: raytrace.World, shots: Sequence[Shot], config: DemoCaptureConfig, folder: Path,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    posed, points, colors = [], [], []
    for number, shot in enumerate(shots):
        camera = shot.camera
        ideal: Callable[[Array], Array] = shot.ideal
        image, _ = raytrace.trace(world, camera, config.samples, config.seed + number, ideal)
        path = folder / "images" / camera.name
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = np.rint(image * 255).astype(np.uint8)
        Image.fromarray(levels).save(path, quality=95, subsampling=0)
        posed.append(PosedImage(camera.name, shot.lens, camera.cam_from_world))
        pixels = rng.uniform([0, 0], [camera.width, camera.height], (_POINTS_A_VIEW, 2))
        met, color = raytrace.hits(world, camera, pixels)
        points.append(met)
        colors.append(np.rint(255 * color).astype(np.uint8))
    write_posed(folder / "sparse" / "0", posed, np.concatenate(points), np.concatenate(colors))
