"""A stylised person: a skeleton posed by joint angles, and the textured limbs around it.

A body's own frame has x to its left, y up and z to its front. Angles are degrees; a joint that is
not named keeps its rest angle. Flexion carries a limb to where muscles would: hip, shoulder and
elbow forwards, knee backwards; `raise` carries an arm or leg sideways and up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stages.scenes.cameras import Array, rotation_from_vector
from stages.scenes.demo.meshes import Mesh, capsule, ellipsoid, loft
from stages.scenes.demo.textures import cloth, head, skin

SIDES = {"left": 1.0, "right": -1.0}
PELVIS_HEIGHT = 0.93  # metres, standing, for a person of height 1.75 m

_PALETTE = np.array(
    [
        [0.80, 0.16, 0.16], [0.14, 0.32, 0.72], [0.95, 0.76, 0.20], [0.16, 0.52, 0.34],
        [0.52, 0.24, 0.60], [0.92, 0.50, 0.16], [0.12, 0.58, 0.66], [0.90, 0.44, 0.58],
    ]
)  # fmt: skip
_SKIN = np.array([[0.93, 0.76, 0.64], [0.80, 0.60, 0.46], [0.60, 0.42, 0.30], [0.42, 0.28, 0.20]])
_HAIR = np.array([[0.16, 0.11, 0.08], [0.42, 0.26, 0.12], [0.75, 0.58, 0.28], [0.30, 0.30, 0.32]])
_CLOTH = ("stripes", "checks", "dots", "plaid", "patches")


@dataclass(frozen=True)
class Pose:
    """Where a body is and how its joints are bent."""

    place: tuple[float, float]  # x, z of the pelvis on the floor plan, metres
    facing_deg: float  # 0 looks to +z, 90 to +x
    height: float = PELVIS_HEIGHT  # of the pelvis, metres
    lean_deg: float = 0.0  # whole trunk forwards
    sway_deg: float = 0.0  # whole trunk to the left
    twist_deg: float = 0.0  # shoulders against the pelvis
    nod_deg: float = 0.0
    joints: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joint positions [3] by name, and the frames of pelvis, chest and head, in the world."""

    at: dict[str, Array]
    frames: dict[str, Array]


def solve(pose: Pose) -> Skeleton:
    """Forward kinematics of a pose."""
    pelvis = _turn(y=pose.facing_deg)
    chest = pelvis @ _turn(x=pose.lean_deg, z=-pose.sway_deg) @ _turn(y=pose.twist_deg)
    skull = chest @ _turn(x=pose.nod_deg - 0.6 * pose.lean_deg)
    at = {"pelvis": np.array([pose.place[0], pose.height, pose.place[1]])}
    at["waist"] = at["pelvis"] + pelvis @ [0, 0.12, 0]
    at["chest"] = at["waist"] + chest @ [0, 0.22, 0]
    at["neck"] = at["chest"] + chest @ [0, 0.20, 0]
    at["head"] = at["neck"] + skull @ [0, 0.20, 0.015]
    for side, sign in SIDES.items():
        _solve_arm(pose, side, sign, chest, at)
        _solve_leg(pose, side, sign, pelvis, at)
    return Skeleton(at, {"pelvis": pelvis, "chest": chest, "head": skull})


def lowest(skeleton: Skeleton) -> float:
    """Height of the lowest sole, metres."""
    feet = [skeleton.at[f"{side}_{part}"][1] for side in SIDES for part in ("ankle", "toe")]
    return float(min(feet)) - 0.06


@dataclass(frozen=True, eq=False)
class Person:
    """Appearance of one person of a pair."""

    number: int  # 0 or 1
    textures: dict[str, Array]
    build: float  # girth, 1 is average

    @classmethod
    def of_pair(cls, pair: int, number: int, seed: int) -> "Person":
        """The same two people for every action of a pair; other people for another pair."""
        rng = np.random.default_rng([seed, pair, number])
        shirt, trousers, trim = _PALETTE[rng.permutation(len(_PALETTE))[:3]]
        tone, hair = _SKIN[rng.integers(len(_SKIN))], _HAIR[rng.integers(len(_HAIR))]
        kinds = rng.permutation(_CLOTH)
        textures = {
            "shirt": cloth(kinds[0], shirt, 0.35 + 0.6 * trim, rng),
            "trousers": cloth(kinds[1], trousers * 0.8, trousers * 0.35, rng),
            "skin": skin(tone, rng),
            "head": head(tone, hair, rng),
            "shoes": cloth("stripes", trim, trim * 0.25, rng),
        }
        named = {f"{name}{number}": image for name, image in textures.items()}
        return cls(number, named, float(rng.uniform(0.9, 1.12)))

    def meshes(self, skeleton: Skeleton) -> list[Mesh]:
        """The body around a posed skeleton."""
        parts = [*self._trunk(skeleton), *self._head(skeleton)]
        for side in SIDES:
            parts += self._arm(skeleton, side) + self._leg(skeleton, side)
        return parts

    def _trunk(self, skeleton: Skeleton) -> list[Mesh]:
        at, frames, b = skeleton.at, skeleton.frames, self.build
        pelvis, chest = frames["pelvis"], frames["chest"]
        shirt = loft(
            [
                at["waist"] - pelvis @ [0, 0.08, 0],
                at["waist"],
                at["waist"] + chest @ [0, 0.12, 0],
                at["chest"] + chest @ [0, 0.06, 0],
                at["neck"] - chest @ [0, 0.05, 0],
                at["neck"],
            ],
            [(0.165 * b, 0.12 * b), (0.15 * b, 0.11 * b), (0.17 * b, 0.12 * b),
             (0.195 * b, 0.125 * b), (0.17 * b, 0.10 * b), (0.06, 0.06)],
            [pelvis, pelvis, chest, chest, chest, chest],
            f"shirt{self.number}", self.number, (2.0, 1.4),
        )  # fmt: skip
        hips = ellipsoid(
            at["pelvis"] - pelvis @ [0, 0.01, 0], [0.175 * b, 0.13, 0.13 * b], pelvis,
            f"trousers{self.number}", self.number,
        )  # fmt: skip
        return [shirt, hips]

    def _head(self, skeleton: Skeleton) -> list[Mesh]:
        at, frame = skeleton.at, skeleton.frames["head"]
        skull = ellipsoid(
            at["head"], [0.088, 0.125, 0.105], frame, f"head{self.number}", self.number
        )
        nose_at = at["head"] + frame @ [0, -0.012, 0.105]
        nose = ellipsoid(nose_at, [0.014, 0.026, 0.022], frame, f"skin{self.number}", self.number)
        neck = capsule(
            at["neck"] - [0, 0.02, 0], at["head"], (0.058, 0.052), f"skin{self.number}", self.number
        )
        return [skull, nose, neck]

    def _arm(self, skeleton: Skeleton, side: str) -> list[Mesh]:
        shoulder, elbow, wrist, hand = (
            skeleton.at[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist", "hand")
        )
        b, n = self.build, self.number
        return [
            capsule(shoulder, elbow, (0.064 * b, 0.048 * b), f"shirt{n}", n, (1.0, 0.8)),
            capsule(elbow, wrist, (0.043 * b, 0.031 * b), f"skin{n}", n),
            capsule(wrist, hand, (0.036, 0.030), f"skin{n}", n),
        ]

    def _leg(self, skeleton: Skeleton, side: str) -> list[Mesh]:
        hip, knee, ankle, toe = (
            skeleton.at[f"{side}_{part}"] for part in ("hip", "knee", "ankle", "toe")
        )
        b, n = self.build, self.number
        return [
            capsule(hip, knee, (0.088 * b, 0.062 * b), f"trousers{n}", n, (1.0, 1.2)),
            capsule(knee, ankle, (0.060 * b, 0.043 * b), f"trousers{n}", n, (1.0, 1.2)),
            capsule(ankle - [0, 0.015, 0], toe, (0.050, 0.042), f"shoes{n}", n),
        ]


def _solve_arm(pose: Pose, side: str, sign: float, chest: Array, at: dict[str, Array]) -> None:
    angle = lambda joint, rest=0.0: pose.joints.get(f"{side}_{joint}", rest)  # noqa: E731
    at[f"{side}_shoulder"] = at["neck"] + chest @ [0.185 * sign, -0.06, 0]
    upper = chest @ _turn(x=-angle("shoulder_flex")) @ _turn(z=sign * angle("arm_raise", 8.0))
    at[f"{side}_elbow"] = at[f"{side}_shoulder"] + upper @ [0, -0.29, 0]
    lower = upper @ _turn(y=-sign * angle("arm_turn")) @ _turn(x=-angle("elbow_flex", 12.0))
    at[f"{side}_wrist"] = at[f"{side}_elbow"] + lower @ [0, -0.25, 0]
    at[f"{side}_hand"] = at[f"{side}_wrist"] + lower @ [0, -0.09, 0]


def _solve_leg(pose: Pose, side: str, sign: float, pelvis: Array, at: dict[str, Array]) -> None:
    angle = lambda joint, rest=0.0: pose.joints.get(f"{side}_{joint}", rest)  # noqa: E731
    at[f"{side}_hip"] = at["pelvis"] + pelvis @ [0.095 * sign, -0.04, 0]
    upper = pelvis @ _turn(x=-angle("hip_flex")) @ _turn(z=sign * angle("leg_raise", 3.0))
    at[f"{side}_knee"] = at[f"{side}_hip"] + upper @ [0, -0.41, 0]
    lower = upper @ _turn(x=angle("knee_flex"))
    at[f"{side}_ankle"] = at[f"{side}_knee"] + lower @ [0, -0.41, 0]
    foot = lower @ _turn(x=angle("toe_point", angle("hip_flex") - angle("knee_flex")))
    at[f"{side}_toe"] = at[f"{side}_ankle"] + foot @ [0, -0.02, 0.15]


def _turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    """Rotation about x, then y, then z of the parent frame, degrees."""
    about = [rotation_from_vector(np.radians(part)) for part in ([x, 0, 0], [0, y, 0], [0, 0, z])]
    return about[2] @ about[1] @ about[0]
