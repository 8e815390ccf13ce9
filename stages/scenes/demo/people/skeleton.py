"""A person's skeleton: proportions, a pose, and the resulting joints.

A body's own frames have x to its left, y up and z to its front. Lengths are metres of a person of
1.75 m and are scaled by `Build.scale`; angles are degrees. Trunk and head follow joint angles;
arms and legs are bent so that palms and ankles reach positions in the world.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from stages.scenes.cameras import (
    Array,
    quat_from_rotation,
    rotation_from_quat,
    rotation_from_vector,
)

SIDES = {"left": 1.0, "right": -1.0}
UP = np.array([0.0, 1.0, 0.0])
HIP_HEIGHT = 0.915  # metres above the floor, standing upright
ANKLE_HEIGHT = 0.085

_BENDS_FROM, _BENDS_TO = (0.02, 0.32)  # stretch of the spine, above the pelvis, that bends
_NECK, _THIGH, _SHIN, _UPPER_ARM, _FOREARM, _PALM = 0.51, 0.42, 0.41, 0.285, 0.25, 0.075
_HIP, _SHOULDER = np.array([0.088, -0.045, 0.0]), np.array([0.170, -0.055, -0.008])
_TIP = np.array([0.0, -ANKLE_HEIGHT, 0.192])  # of the shoe's sole, from the ankle

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Build:
    """Proportions of one person."""

    height: float = 1.75  # metres
    girth: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0

    @property
    def scale(self) -> float:
        """Factor on all lengths of this module."""
        return self.height / 1.75


@dataclass(frozen=True)
class Reach:
    """Position of a palm; `elbow` is the direction of the elbow in the chest's frame."""

    palm: Vector  # world
    elbow: Vector | None = None
    curl: float = 0.25  # of the fingers, from 0 (flat) to 1 (fist)


@dataclass(frozen=True)
class Step:
    """Position of an ankle and rotation of the foot; `pitch_deg` lifts the heel."""

    ankle: Vector  # world
    yaw_deg: float
    pitch_deg: float = 0.0
    knee: Vector | None = None  # direction of the knee, world; None: the foot's front


@dataclass(frozen=True)
class Pose:
    """Pose of a body. With facing 0 it looks to +z, with 90 to +x."""

    pelvis: Vector  # world
    facing_deg: float
    tilt_deg: tuple[float, float] = (0.0, 0.0)  # pelvis forwards, to the left
    spine_deg: Vector = (0.0, 0.0, 0.0)  # bent forwards, bent to the left, twisted to the left
    head_deg: Vector = (0.0, 0.0, 0.0)  # nodding, tilted to the left, rotated to the left
    hands: Mapping[str, Reach] = field(default_factory=dict)
    feet: Mapping[str, Step] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trunk:
    """Pelvis, spine and head of a posed body."""

    scale: float
    pelvis: Array  # [3]
    frames: dict[str, Array]  # pelvis, chest, head: [3, 3], world from body

    def spine(self, height: float) -> tuple[Array, Array]:
        """Point [3] and frame [3, 3] of the spine at a height above the pelvis's centre."""
        stops = np.clip([_BENDS_FROM, (_BENDS_FROM + _BENDS_TO) / 2, _BENDS_TO], None, height)
        share = float(np.clip((height - _BENDS_FROM) / (_BENDS_TO - _BENDS_FROM), 0, 1))
        up = np.stack([self._bent(at)[:, 1] for at in (0.0, 0.25, 0.75, 1.0)])
        lengths = [stops[0], stops[1] - stops[0], stops[2] - stops[1], height - stops[2]]
        return self.pelvis + self.scale * np.array(lengths) @ up, self._bent(share)

    def point(self, part: str, offset: ArrayLike) -> Array:
        """World point [3] at an offset in the frame of `pelvis`, `chest` or `head`.

        The chest's origin is the base of the neck; the head's is the middle of the skull.
        """
        return self.origin(part) + self.scale * self.frames[part] @ np.asarray(offset, np.float64)

    def origin(self, part: str) -> Array:
        """World origin [3] of a part's frame."""
        if part == "pelvis":
            return self.pelvis
        neck = self.spine(_NECK)[0]
        if part == "chest":
            return neck
        lift = self.frames["chest"] @ [0, 0.06, 0.005] + self.frames["head"] @ [0, 0.105, 0.012]
        return neck + self.scale * lift

    def _bent(self, share: float) -> Array:
        """Frame interpolated from pelvis (share 0) to chest (share 1)."""
        quats = [quat_from_rotation(self.frames[part]) for part in ("pelvis", "chest")]
        nearer = quats[1] if quats[0] @ quats[1] >= 0 else -quats[1]
        return rotation_from_quat((1 - share) * quats[0] + share * nearer)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """All joints of a posed body."""

    build: Build
    trunk: Trunk
    joints: dict[str, Array]  # left_shoulder, left_elbow, left_wrist, left_palm, left_hip, ...
    feet: dict[str, Array]  # by side: world from foot [3, 3]
    curls: dict[str, float]  # by side: of the fingers


def trunk(build: Build, pose: Pose) -> Trunk:
    """Pelvis, spine and head."""
    pelvis = _rotation(y=pose.facing_deg) @ _rotation(x=pose.tilt_deg[0], z=-pose.tilt_deg[1])
    bend, side, twist = pose.spine_deg
    chest = pelvis @ _rotation(x=bend, z=-side) @ _rotation(y=twist)
    nod, tip, rotated = pose.head_deg
    head = chest @ _rotation(y=rotated) @ _rotation(x=nod, z=-tip)
    frames = {"pelvis": pelvis, "chest": chest, "head": head}
    return Trunk(build.scale, np.array(pose.pelvis), frames)


def solve(build: Build, pose: Pose) -> Skeleton:
    """The skeleton of a pose. Limbs point to targets that are out of reach."""
    body = trunk(build, pose)
    joints: dict[str, Array] = {}
    for side, sign in SIDES.items():
        joints |= {f"{side}_{name}": at for name, at in _arm(build, body, pose, side, sign).items()}
        joints |= {f"{side}_{name}": at for name, at in _leg(build, body, pose, side, sign).items()}
    feet = {side: foot_frame(step) for side, step in pose.feet.items()}
    return Skeleton(build, body, joints, feet, {s: hand.curl for s, hand in pose.hands.items()})


def foot_frame(step: Step) -> Array:
    """World from foot [3, 3]: y is up through the ankle, z to the toes."""
    return _rotation(y=step.yaw_deg) @ _rotation(x=step.pitch_deg)


def planted(build: Build, x: float, z: float, yaw_deg: float, heel_deg: float = 0.0) -> Step:
    """A step whose toe stays on the floor when the heel is lifted; flat, it stands at (x, z)."""
    flat = np.array([x, build.scale * ANKLE_HEIGHT, z])
    tip = flat + build.scale * _rotation(y=yaw_deg) @ _TIP
    step = Step((0.0, 0.0, 0.0), yaw_deg, heel_deg)
    ankle = tip - build.scale * foot_frame(step) @ _TIP
    return Step(tuple(ankle.tolist()), yaw_deg, heel_deg)


def bend(
    start: Array, end: Array, upper: float, lower: float, towards: Array
) -> tuple[Array, Array]:
    """Middle and end joint [3] of a limb that bends towards `towards`.

    >>> bend(np.zeros(3), np.array([0.0, -8.0, 0.0]), 5.0, 5.0, np.array([0.0, 0.0, 1.0]))[0]
    array([ 0., -4.,  3.])
    """
    reach = end - start
    length = np.linalg.norm(reach)
    axis = reach / max(length, 1e-9)
    distance = np.clip(length, 1.05 * abs(upper - lower) + 1e-3, 0.998 * (upper + lower))
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    sideways = towards - axis * (towards @ axis)
    sideways /= max(np.linalg.norm(sideways), 1e-9)
    return start + along * axis + np.sqrt(upper**2 - along**2) * sideways, start + distance * axis


def _arm(build: Build, body: Trunk, pose: Pose, side: str, sign: float) -> dict[str, Array]:
    hand, chest = pose.hands[side], body.frames["chest"]
    shoulder = body.point("chest", _SHOULDER * [sign * build.shoulders, 1, 1])
    towards = chest @ np.array(hand.elbow or (0.35 * sign, -0.6, -0.8))
    upper, lower = build.scale * _UPPER_ARM, build.scale * (_FOREARM + _PALM)
    elbow, palm = bend(shoulder, np.array(hand.palm), upper, lower, towards)
    wrist = elbow + (palm - elbow) * _FOREARM / (_FOREARM + _PALM)
    return {"shoulder": shoulder, "elbow": elbow, "wrist": wrist, "palm": palm}


def _leg(build: Build, body: Trunk, pose: Pose, side: str, sign: float) -> dict[str, Array]:
    step = pose.feet[side]
    hip = body.point("pelvis", _HIP * [sign * build.hips, 1, 1])
    towards = np.array(step.knee) if step.knee else _rotation(y=step.yaw_deg) @ [0, 0, 1]
    lengths = build.scale * _THIGH, build.scale * _SHIN
    knee, ankle = bend(hip, np.array(step.ankle), *lengths, towards)
    return {"hip": hip, "knee": knee, "ankle": ankle}


def _rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    """Rotation about x, then y, then z of the parent frame, degrees."""
    about = [rotation_from_vector(np.radians(part)) for part in ([x, 0, 0], [0, y, 0], [0, 0, z])]
    return about[2] @ about[1] @ about[0]
