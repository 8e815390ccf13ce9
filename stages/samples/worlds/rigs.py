"""Cameras of procedural worlds: paths, lenses, and the errors that a calibration leaves.

Every world has C cameras along one path. Some are sources, whose images train the Gaussians; the
others are targets.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.samples.worlds.tracing import Cameras
from stages.scenes.cameras import Array, look_at, rigid, rotation_from_vector

# Errors of calibrated cameras at a strength of 1, about those of structure from motion on small
# images: rotation of the camera about the point that it looks at, which hardly moves the image,
# what is left of the rotation itself, and the focal length.
_ORBIT, _RESIDUAL_DEG, _FOCAL = 0.0025, 0.05, 0.003
_CROSS = 0.1  # share of rigs of two cameras each, of which one trains and the other is rendered
_SPARSE = 0.15  # share of rigs with two or three sources


class Rig(NamedTuple):
    """True and calibrated cameras of W worlds and which of them are sources."""

    true: Cameras
    calibrated: Cameras
    is_source: Tensor  # [W, C] bool

    def to(self, device: torch.device) -> "Rig":
        """The same rigs on a device."""
        true, calibrated = (Cameras(*(one.to(device) for one in part)) for part in self[:2])
        return Rig(true, calibrated, self.is_source.to(device))


def rigs(seeds: list[tuple[int, ...]], cameras: int, width: int, height: int) -> Rig:
    """Rigs of worlds, on the CPU."""
    made = [_rig(np.random.default_rng((*seed, 1)), cameras, width, height) for seed in seeds]
    K, poses, wrong_K, wrong_poses, sources = (
        torch.tensor(np.stack(part)) for part in zip(*made, strict=True)
    )
    return Rig(
        Cameras(K.float(), poses.float()), Cameras(wrong_K.float(), wrong_poses.float()), sources
    )


def _rig(rng: np.random.Generator, count: int, width: int, height: int) -> tuple[Array, ...]:
    poses, focus = _PATHS[rng.choice(len(_PATHS), p=_SHARES)](rng, count)
    sources = _sources(rng, count)
    if rng.random() < _CROSS:
        poses, sources = _crossed(rng, poses)
    focal = 0.5 * max(width, height) / np.tan(np.radians(rng.uniform(40, 75)) / 2)
    strength = np.exp(rng.uniform(np.log(0.3), np.log(2.5)))
    K, wrong_K, wrong = [], [], []
    for pose in poses:
        own = focal * (1 + 0.02 * rng.uniform(-1, 1))
        middle = (0.5 + 0.015 * rng.uniform(-1, 1, 2)) * [width, height]
        K.append(_intrinsics(own, middle))
        wrong_K.append(_intrinsics(own * (1 + _FOCAL * strength * rng.normal()), middle))
        wrong.append(_calibrated(rng, pose, focus, strength))
    return np.stack(K), np.stack(poses), np.stack(wrong_K), np.stack(wrong), sources


def _calibrated(rng: np.random.Generator, pose: Array, focus: Array, strength: float) -> Array:
    """A pose with errors."""
    orbit = rotation_from_vector(_ORBIT * strength * rng.normal(size=3))
    about = rigid(orbit, focus - orbit @ focus)  # world to world
    tilt = rotation_from_vector(np.radians(_RESIDUAL_DEG) * strength * rng.normal(size=3))
    return rigid(tilt, np.zeros(3)) @ pose @ about


def _intrinsics(focal: float, middle: Array) -> Array:
    return np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])


def _sources(rng: np.random.Generator, count: int) -> Array:
    """Which cameras of a path are sources: bool [count]."""
    number, choice = np.arange(count), rng.random()
    if choice < 0.6:  # one of so many is a target, or a source
        period, first = rng.integers(2, 5), rng.integers(3)
        chosen = (
            (number + first) % period != 0 if rng.random() < 0.7 else (number + first) % period == 0
        )
    elif choice < 0.75:  # one end of the path: targets look from beyond
        chosen = number < rng.integers(3, count - 2)
    else:
        chosen = np.isin(number, rng.permutation(count)[: rng.integers(3, count - 2)])
    if chosen.sum() < 2:
        chosen = number % 3 == 0
    if rng.random() < _SPARSE:
        left = np.flatnonzero(chosen)
        start, few = rng.integers(len(left)), rng.integers(2, 4)
        chosen = np.isin(
            number, left[start : start + few] if start + few <= len(left) else left[-few:]
        )
    return chosen


def _crossed(rng: np.random.Generator, poses: list[Array]) -> tuple[list[Array], Array]:
    """Every second camera is another one beside the first: only the first are sources."""
    beside = rigid(
        rotation_from_vector(np.radians(4) * rng.normal(size=3)),
        rng.uniform(-0.4, 0.4, 3) * [1, 0.6, 0.6],
    )
    is_source = np.arange(len(poses)) % 2 == 0
    return [
        pose if one else beside @ pose for pose, one in zip(poses, is_source, strict=True)
    ], is_source


def _arc(rng: np.random.Generator, count: int) -> tuple[list[Array], Array]:
    """An arc around the middle, at heights that vary."""
    wide = rng.random() < 0.5
    spacing = np.radians(
        rng.uniform(11, 18) if wide else np.exp(rng.uniform(np.log(4), np.log(15)))
    )
    focus = np.array(
        [*rng.uniform(-0.4, 0.4, 1), rng.uniform(0.5, 1.2), *rng.uniform(-0.4, 0.4, 1)]
    )
    first, radius = rng.uniform(0, 2 * np.pi), rng.uniform(1.7, 3.2)
    height, sway = rng.uniform(0.7, 1.9), rng.uniform(0, 0.45)
    poses = []
    for k in range(count):
        angle = first + k * spacing + 0.15 * spacing * rng.normal()
        reach = radius * (1 + 0.05 * rng.normal())
        eye = [
            focus[0] + reach * np.sin(angle),
            height + sway * rng.uniform(-1, 1),
            focus[2] + reach * np.cos(angle),
        ]
        poses.append(_looking(rng, eye, focus + 0.08 * rng.normal(size=3)))
    return poses, focus


def _sideways(rng: np.random.Generator, count: int) -> tuple[list[Array], Array]:
    """A straight walk past things, with the view to the side or ahead."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 3.0)
    way, out = (
        np.array([np.cos(angle), 0, np.sin(angle)]),
        np.array([-np.sin(angle), 0, np.cos(angle)]),
    )
    ahead = rng.random() < 0.35
    focus = np.array([0, rng.uniform(0.6, 1.1), 0])
    height, distance = rng.uniform(0.9, 1.7), rng.uniform(2.2, 3.2)
    poses = []
    for k in range(count):
        share = k / (count - 1) - 0.5
        eye = (
            focus * [1, 0, 1]
            + [0, height, 0]
            - out * distance
            + share * length * (0.7 * out if ahead else way)
        )
        eye = eye + 0.06 * rng.normal(size=3)
        aim = focus + 0.12 * rng.normal(size=3) + (0 if ahead else 0.5 * share * length) * way
        poses.append(_looking(rng, eye, aim))
    return poses, focus


def _cloud(rng: np.random.Generator, count: int) -> tuple[list[Array], Array]:
    """Positions around one place, as of a hand-held camera or an array, ordered along a loop."""
    angle, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.8)
    focus = np.array(
        [*rng.uniform(-0.3, 0.3, 1), rng.uniform(0.5, 1.1), *rng.uniform(-0.3, 0.3, 1)]
    )
    place = focus + np.array([np.sin(angle), 0.3, np.cos(angle)]) * rng.uniform(1.9, 3.0)
    poses = []
    for k in range(count):
        turn = 2 * np.pi * k / count
        across = np.array([np.cos(angle), 0, -np.sin(angle)])
        eye = (
            place
            + spread * (np.cos(turn) * across + 0.5 * np.sin(turn) * np.array([0, 1, 0]))
            + 0.2 * spread * rng.normal(size=3)
        )
        eye[1] = max(eye[1], 0.3)
        poses.append(_looking(rng, eye, focus + 0.15 * rng.normal(size=3)))
    return poses, focus


_PATHS = (_arc, _sideways, _cloud)
_SHARES = (0.7, 0.15, 0.15)


def _looking(rng: np.random.Generator, eye: Array | list[float], aim: Array) -> Array:
    return look_at(eye, aim, [0.05 * rng.normal(), 1, 0.05 * rng.normal()])
