"""Synthetic captures for timing: a room with spheres, textured in 3D, with many cameras.

Colours are sums of waves of many lengths, some of them thresholded, so that views are consistent
and training finds detail at every scale. Spheres move over timestamps. Devices agree up to
rounding; nothing is downloaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stages.scenes.cameras import (
    Array,
    Camera,
    look_at,
    quat_from_rotation,
    rotation_from_quat,
    rotation_from_vector,
)

WAVES = 96
POINTS = 13_800  # as the sparse model of a phone capture has
HELD_OUT = 5  # every fifth view of a timestamp
_HALF_ROOM = (3.0, 1.6, 3.0)
_SPHERES = 9


@dataclass(frozen=True, eq=False)
class Capture:
    """Images, cameras and points of one timestamp."""

    cameras: list[Camera]
    images: np.ndarray  # [V, H, W, 3] uint8
    points: Array  # [P, 3]
    colors: np.ndarray  # [P, 3] uint8


def phone(count: int, width: int, height: int, device: str, points: int = POINTS) -> Capture:
    """A walk along an arc through the room, as with a phone."""
    shares = np.linspace(-1, 1, count)
    eyes = [
        np.array([2.2 * np.sin(1.1 * s), -0.25 + 0.3 * np.sin(5 * s), -2.3 * np.cos(1.1 * s)])
        for s in shares
    ]
    targets = [np.array([0.3 * np.sin(3 * s), 0.3, 0.2]) for s in shares]
    return _capture(eyes, targets, 0.78 * max(width, height), width, height, 0.0, device, points)


def rig(
    count: int, width: int, height: int, time: float, device: str, points: int = 5_000
) -> Capture:
    """Fixed cameras on a ring at one timestamp."""
    angles = 2 * np.pi * np.arange(count) / count
    eyes = [np.array([2.4 * np.sin(a), -0.5, -2.4 * np.cos(a)]) for a in angles]
    targets = [np.array([0.0, 0.35, 0.0])] * count
    return _capture(eyes, targets, 0.9 * max(width, height), width, height, time, device, points)


def timestamps(count: int, width: int, height: int, device: str) -> Iterator[Capture]:
    """Ten fixed cameras and moving spheres over timestamps; every `HELD_OUT`th view is held out."""
    return (rig(10, width, height, 0.15 * time, device) for time in range(count))


def photographed(capture: Capture, seed: int = 3) -> Capture:
    """The capture with what photographs and their calibration have: images differ in exposure by
    3 % and in the balance of colours by 1 %, pixels have noise of 2 levels, poses errors of 0.03
    degrees an axis and 0.002 units (standard deviations).
    """
    random = np.random.default_rng(seed)
    cameras, images = [], []
    for camera, image in zip(capture.cameras, capture.images, strict=True):
        gain = (1 + 0.03 * random.normal()) * (1 + 0.01 * random.normal(size=3))
        levels = image.astype(np.float32) * gain + 2 * random.normal(size=image.shape)
        images.append(np.clip(levels.round(), 0, 255).astype(np.uint8))
        turned = np.eye(4)
        turned[:3, :3] = rotation_from_vector(np.deg2rad(0.03) * random.normal(size=3))
        pose = turned @ camera.cam_from_world
        pose[:3, 3] += 0.002 * random.normal(size=3)
        cameras.append(camera.moved(pose))
    return replace(capture, cameras=cameras, images=np.stack(images))


def write(capture: Capture, folder: Path) -> None:
    """Write images/ and a COLMAP text model in sparse/0/."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (folder / "images").mkdir()
    cameras, images = [], []
    for number, (camera, image) in enumerate(
        zip(capture.cameras, capture.images, strict=True), start=1
    ):
        Image.fromarray(image).save(folder / "images" / camera.name)
        focal, middle = np.diag(camera.K)[:2], camera.K[:2, 2]
        numbers = " ".join(map(repr, map(float, [*focal, *middle])))
        cameras.append(f"{number} PINHOLE {camera.width} {camera.height} {numbers}")
        quat = quat_from_rotation(camera.cam_from_world[:3, :3])
        pose = " ".join(map(repr, map(float, [*quat, *camera.cam_from_world[:3, 3]])))
        images.append(f"{number} {pose} {number} {camera.name}\n")
    points = [
        f"{number} {' '.join(map(repr, map(float, xyz)))} {' '.join(map(str, rgb))} 0.5"
        for number, (xyz, rgb) in enumerate(
            zip(capture.points, capture.colors.tolist(), strict=True), start=1
        )
    ]
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (model / f"{name}.txt").write_text("\n".join(lines) + "\n")


def missing(folder: Path) -> list[str]:
    """What `read` needs that a folder lacks."""
    models = [f"sparse/0/{name}.txt" for name in ("cameras", "images", "points3D")]
    absent = [name for name in models if not (folder / name).is_file()]
    return absent if (folder / "images").is_dir() else ["images/", *absent]


def read(folder: Path) -> Capture:
    """Read a capture of `write`, or another of undistorted images: a text model of COLMAP."""
    model = folder / "sparse" / "0"
    sizes = {row[0]: row[2:] for row in _rows(model / "cameras.txt")}
    cameras, images_read = [], []
    # Every second line has the features of an image.
    views = [line.split()[:10] for line in _lines(model / "images.txt")[::2] if line.strip()]
    for _, *pose, camera, name in sorted(views, key=lambda view: view[-1]):
        width, height, fx, fy, cx, cy = map(float, sizes[camera])
        numbers = np.array(pose, np.float64)
        transform = np.eye(4)
        transform[:3, :3], transform[:3, 3] = rotation_from_quat(numbers[:4]), numbers[4:]
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        cameras.append(Camera(name, K, transform, int(width), int(height)))
        images_read.append(np.asarray(Image.open(folder / "images" / name)))
    table = np.array([row[1:7] for row in _rows(model / "points3D.txt")], np.float64)
    return Capture(cameras, np.stack(images_read), table[:, :3], table[:, 3:].astype(np.uint8))


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in _lines(path) if line.strip()]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def _capture(
    eyes: list[Array],
    targets: list[Array],
    focal: float,
    width: int,
    height: int,
    time: float,
    device: str,
    points: int,
) -> Capture:
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    up = np.array([0.0, -1.0, 0.0])
    cameras = [
        Camera(f"{k:03d}.png", K, look_at(eye, target, up), width, height)
        for k, (eye, target) in enumerate(zip(eyes, targets, strict=True))
    ]
    scene = _Scene(time, device)
    images = np.stack([scene.render(camera) for camera in cameras])
    return Capture(cameras, images, *scene.points(cameras, points))


class _Scene:
    """The room at one timestamp."""

    def __init__(self, time: float, device: str):
        self.device = device
        random = np.random.default_rng(5)
        lengths = np.exp(random.uniform(np.log(0.03), np.log(2.0), WAVES))
        directions = random.normal(size=(3, WAVES))
        directions /= np.linalg.norm(directions, axis=0)
        self.waves = self._tensor(2 * np.pi * directions / lengths)
        self.phases = self._tensor(random.uniform(0, 2 * np.pi, WAVES))
        self.weights = self._tensor(random.normal(size=(WAVES, 3)) * lengths[:, None] ** 0.45)
        self.half = self._tensor(np.array(_HALF_ROOM))
        places = random.uniform((-1.3, 0.2, -1.3), (1.3, 1.2, 1.3), (_SPHERES, 3))
        self.radii = self._tensor(random.uniform(0.15, 0.4, _SPHERES))
        swing = 0.25 * np.sin(time + random.uniform(0, 2 * np.pi, (_SPHERES, 3)))
        self.moved = self._tensor(swing)
        self.centres = self._tensor(places) + self.moved

    def render(self, camera: Camera) -> np.ndarray:
        """Pixels [H, W, 3] uint8, the mean of four rays each."""
        y, x = torch.meshgrid(
            torch.arange(camera.height), torch.arange(camera.width), indexing="ij"
        )
        corner = torch.stack([x, y], dim=-1).reshape(-1, 2).to(self.device, torch.float64)
        total = torch.zeros((), device=self.device)
        for shift in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
            total = total + self._cast(camera, corner + corner.new_tensor(shift))[1] / 4
        levels = (255 * total).round().byte().cpu().numpy()
        return levels.reshape(camera.height, camera.width, 3)

    def points(self, cameras: list[Camera], count: int) -> tuple[Array, np.ndarray]:
        """Noisy points on visible surfaces, as from structure from motion."""
        random = np.random.default_rng(6)
        places, colors = [], []
        for camera in cameras:
            share = -(-count // len(cameras))
            pixels = random.uniform((0, 0), (camera.width, camera.height), (share, 2))
            place, color = self._cast(camera, torch.tensor(pixels, device=self.device))
            places.append(place.double().cpu().numpy())
            colors.append((255 * color).round().byte().cpu().numpy())
        xyz = np.concatenate(places)[:count]
        return xyz + random.normal(0, 0.003, xyz.shape), np.concatenate(colors)[:count]

    def _cast(self, camera: Camera, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Ends and colours of the rays of pixels [R, 2], [R, 3] each."""
        rotated = np.linalg.inv(camera.K).T @ camera.cam_from_world[:3, :3]
        flat = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        rays = torch.nn.functional.normalize(flat @ flat.new_tensor(rotated), dim=1).float()
        eye = self._tensor(camera.centre)
        walls = ((self.half * rays.sign() - eye) / rays).amin(dim=1)
        offsets = eye - self.centres  # [S, 3]
        along = rays @ offsets.T
        inside = along.square() - (offsets.square().sum(1) - self.radii.square())
        spheres = -along - inside.clamp(min=0).sqrt()
        spheres = torch.where((inside > 0) & (spheres > 0), spheres, torch.inf)
        nearest, which = spheres.min(dim=1)
        hit = nearest < walls
        place = eye + rays * torch.minimum(nearest, walls)[:, None]
        # A sphere carries its texture along.
        carried = place - self.moved[which] + 7.0 * (which[:, None] + 1)
        still = torch.where(hit[:, None], carried, place)
        return place, self._color(still)

    def _color(self, place: Tensor) -> Tensor:
        waves = torch.cos(place @ self.waves + self.phases)
        third = WAVES // 3
        waves = torch.cat([torch.tanh(6 * waves[:, :third]), waves[:, third:]], dim=1)
        return torch.sigmoid(0.2 * (waves @ self.weights))

    def _tensor(self, values: Array) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)
