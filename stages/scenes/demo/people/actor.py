"""An actor: a person's proportions and a pose that is built in steps.

Every method returns a new actor. Positions are in metres; offsets are in a body's own frame (x to
its left, y up, z to its front) for a person of 1.75 m.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.scenes.cameras import Array
from stages.scenes.demo.people.skeleton import (
    HIP_HEIGHT,
    SIDES,
    Build,
    Pose,
    Reach,
    Step,
    Trunk,
    Vector,
    planted,
    trunk,
)

_STANDING = HIP_HEIGHT + 0.045  # height of the centre of the pelvis


@dataclass(frozen=True)
class Actor:
    """One person in the middle of an action."""

    build: Build
    pose: Pose

    @classmethod
    def standing(
        cls,
        build: Build,
        place: Sequence[float],  # (x, z)
        facing_deg: float,
        *,
        crouch: float = 0.02,
        stance: float = 0.11,
        stride: float = 0.0,
        lifted_deg: float = 0.0,
        shift: float = 0.0,
    ) -> "Actor":
        """On both feet, arms hanging.

        `crouch` lowers the pelvis, `stance` is half the distance of the feet, `stride` moves the
        left foot forwards, `lifted_deg` raises the heel of the rear foot, `shift` moves the pelvis
        over the left foot.
        """
        s, middle = build.scale, np.asarray(place, np.float64)
        feet = {}
        for side, sign in SIDES.items():
            x, z = middle + s * sign * ahead(facing_deg, stride, stance)
            heel = lifted_deg if sign * stride < 0 else 0.0
            feet[side] = planted(build, x, z, facing_deg + 9 * sign, heel)
        x, z = middle + s * ahead(facing_deg, 0.0, shift)
        pelvis = (float(x), s * (_STANDING - crouch), float(z))
        return cls(build, Pose(pelvis, facing_deg, feet=feet)).relaxed()

    @property
    def trunk(self) -> Trunk:
        """Pelvis, spine and head in this pose."""
        return trunk(self.build, self.pose)

    def bent(
        self,
        *,
        tilt: tuple[float, float] = (0.0, 0.0),
        spine: Vector = (0.0, 0.0, 0.0),
        head: Vector = (0.0, 0.0, 0.0),
    ) -> "Actor":
        """With pelvis, spine and head rotated by the angles of `Pose`, degrees."""
        return self._with(tilt_deg=tilt, spine_deg=spine, head_deg=head)

    def relaxed(self) -> "Actor":
        """With both arms hanging."""
        left = self.hand("left", (0.25, -0.62, 0.05))
        return left.hand("right", (-0.25, -0.62, 0.05))

    def hand(
        self, side: str, offset: Vector, *, elbow: Vector | None = None, curl: float = 0.25
    ) -> "Actor":
        """With a palm at an offset from the base of the neck, in the chest's frame."""
        return self.touch(side, self.trunk.point("chest", offset), elbow=elbow, curl=curl)

    def touch(
        self, side: str, position: Array, *, elbow: Vector | None = None, curl: float = 0.25
    ) -> "Actor":
        """With a palm at a world position."""
        reach = Reach(vector(position), elbow, curl)
        return self._with(hands={**self.pose.hands, side: reach})

    def foot(self, side: str, step: Step) -> "Actor":
        """With another position of a foot."""
        return self._with(feet={**self.pose.feet, side: step})

    def _with(self, **changed: object) -> "Actor":
        return replace(self, pose=replace(self.pose, **changed))


def ahead(facing_deg: float, front: float, left: float = 0.0) -> Array:
    """An offset (x, z) on the floor, forwards and to the left of someone with that facing.

    >>> ahead(90.0, 1.0).round(9).tolist()
    [1.0, 0.0]
    """
    sine, cosine = np.sin(np.radians(facing_deg)), np.cos(np.radians(facing_deg))
    return np.array([front * sine + left * cosine, front * cosine - left * sine])


def vector(position: Array) -> Vector:
    """Three plain numbers."""
    x, y, z = (float(part) for part in position)
    return x, y, z
