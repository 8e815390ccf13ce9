"""Actions of two people: their poses at a phase of an action, 0 to 1, by the action's name.

The floor plan (x, z) has its origin in the middle of the room. Hands and feet get target positions,
and the skeleton bends its limbs to reach them.
"""

from collections.abc import Callable

import numpy as np

from stages.run.errors import UserError
from stages.run.settings.params import did_you_mean
from stages.scenes.cameras import Array
from stages.scenes.demo.people.actor import Actor, ahead, vector
from stages.scenes.demo.people.skeleton import SIDES, UP, Build, Pose, Step, Vector

Builds = tuple[Build, Build]
Pair = tuple[Actor, Actor]


def poses(action: str, phase: float, builds: Builds, variant: int = 0) -> tuple[Pose, Pose]:
    """Both people at a phase in [0, 1]. Raises UserError for an action that is not modelled.

    `variant` selects among several versions of an action.
    """
    if action not in _ACTIONS:
        raise UserError(
            "demo.scenes",
            f"action {action!r}",
            expected="one of " + ", ".join(_ACTIONS),
            hint=did_you_mean(action, list(_ACTIONS)),
        )
    versions = _ACTIONS[action]
    one, two = versions[variant % len(versions)](phase, builds)
    return one.pose, two.pose


def _talk(phase: float, builds: Builds) -> Pair:
    """A metre apart, face to face: one gestures while talking, the other has folded arms."""
    beat, nod = _wave(phase), 4 * _wave(phase, 3)
    speaker = Actor.standing(builds[0], (-0.50, 0.02), 88, shift=0.02 * beat)
    speaker = speaker.bent(spine=(4, 2 * beat, 6 * beat), head=(3 + nod, 2 * beat, 0))
    right, left = (-0.20, -0.20 + 0.06 * beat, 0.34), (0.24, -0.30 - 0.06 * beat, 0.30)
    speaker = speaker.hand("right", right, elbow=(-0.2, -1, -0.4), curl=0.1)
    speaker = speaker.hand("left", left, elbow=(0.2, -1, -0.4), curl=0.15)
    listener = Actor.standing(builds[1], (0.50, -0.02), -94, shift=-0.03, stance=0.13)
    tip = 6 * _wave(phase, 1, 0.2)
    listener = listener.bent(spine=(-2, -3, 0), head=(6 + 5 * beat, tip, 4))
    listener = listener.hand("left", (-0.13, -0.27, 0.17), elbow=(1, -0.5, 0.1))
    return speaker, listener.hand("right", (0.10, -0.32, 0.19), elbow=(-1, -0.5, 0.1))


def _waltz(phase: float, builds: Builds) -> Pair:
    """A couple in closed hold that rotates about its centre."""
    facing, step, sway = -35 + 110 * phase, 0.09 * _wave(phase), 6 * _wave(phase, 1, 0.1)
    lead = Actor.standing(
        builds[0], ahead(facing, -0.24), facing, crouch=0.04, stride=0.04 + step, lifted_deg=25
    ).bent(spine=(0, sway, 0), head=(4, 0, 25))
    follow = Actor.standing(
        builds[1],
        ahead(facing, 0.24),
        facing + 180,
        crouch=0.04,
        stride=-0.04 - step,
        lifted_deg=30,
    ).bent(spine=(-7, -sway, 0), head=(-6, 8, 30))
    back = follow.trunk.point("chest", (0.15, -0.20, -0.10))
    shoulder = lead.trunk.point("chest", (-0.16, -0.02, -0.03))
    lead, follow = _joined(lead, follow, ("left", "right"), (0.52, -0.04, 0.20), curl=0.5)
    lead = lead.touch("right", back, elbow=(-1, -0.2, 0))
    return lead, follow.touch("left", shoulder, elbow=(1, -0.3, 0))


def _twirl(phase: float, builds: Builds) -> Pair:
    """One turns under the other's raised arm."""
    lead = Actor.standing(
        builds[0], (-0.36, 0.05), 75, crouch=0.04, stride=0.10, lifted_deg=20
    ).bent(spine=(-3, -8, 10), head=(-8, 0, 0))
    partner = Actor.standing(
        builds[1], (0.26, 0.0), 40 + 300 * phase, stance=0.05, stride=0.08, lifted_deg=40
    ).bent(spine=(-5, 6 * _wave(phase), 0), head=(-6, 0, 12))
    heads = np.stack([actor.trunk.origin("head") for actor in (lead, partner)])
    # Closer to the partner, and as high as the shorter person reaches.
    x, _, z = 0.35 * heads[0] + 0.65 * heads[1]
    above, flow = np.array([x, heads[:, 1].min() + 0.20, z]), 0.10 * _wave(phase, 1, 0.1)
    lead = lead.touch("left", above, elbow=(1, -0.4, 0.3), curl=0.5)
    lead = lead.hand("right", (-0.50, -0.22 + flow, 0.12), elbow=(0, -1, -0.5), curl=0.1)
    partner = partner.touch("right", above - 0.03 * UP, elbow=(-1, -0.2, 0.4), curl=0.5)
    partner = partner.hand("left", (0.52, -0.12 - flow, 0.15), elbow=(0, -1, -0.3), curl=0.1)
    return lead, partner


def _swing(phase: float, builds: Builds) -> Pair:
    """Both hands joined at arm's length, leaning back and kicking in facing."""
    facing, kick = 20 + 50 * phase, _wave(phase)
    lead = _swinger(builds[0], ahead(facing, -0.44), facing, kick)
    partner = _swinger(builds[1], ahead(facing, 0.44), facing + 180, -kick)
    for sides, sign in ((("left", "right"), 1), (("right", "left"), -1)):
        offset = (0.22 * sign, -0.30 - 0.05 * sign * kick, 0.44)
        lead, partner = _joined(lead, partner, sides, offset, curl=0.6)
    return lead, partner


def _swinger(build: Build, place: Array, facing: float, kick: float) -> Actor:
    """One of `_swing`, on one leg: the left one swings back where `kick` is positive."""
    actor = Actor.standing(build, place, facing, crouch=0.05, shift=-0.05 * kick)
    actor = actor.bent(tilt=(-8, 0), spine=(-6, 4 * kick, 5 * kick), head=(6, 0, 0))
    side, high = "left" if kick > 0 else "right", abs(kick)
    x, y, z = actor.pose.feet[side].ankle
    back_x, back_z = ahead(facing, -0.26 * high)
    return actor.foot(side, Step((x + back_x, y + 0.28 * high, z + back_z), facing, 55 * high))


def _fight(phase: float, builds: Builds) -> Pair:
    """A punch that hits the guard, then a kick to the body."""
    punch, kick = _hump(phase, 0.25, 0.3), _hump(phase, 0.75, 0.3)
    attacker = Actor.standing(
        builds[0],
        (-0.40 - 0.14 * kick, 0.0),
        90,
        crouch=0.09,
        stance=0.09,
        stride=0.17,
        lifted_deg=25,
        shift=0.02,
    ).bent(
        tilt=(8 * punch - 12 * kick, -6 * kick),
        spine=(8 - 10 * kick, 0, 22 * punch - 10 * kick),
        head=(6, 0, -20 * punch),
    )
    defender = Actor.standing(
        builds[1],
        (0.36 + 0.12 * kick, 0.04),
        -90,
        crouch=0.08,
        stance=0.12,
        stride=0.15,
        lifted_deg=20,
    ).bent(
        tilt=(-6 * punch + 22 * kick, 0),
        spine=(-9 * punch + 26 * kick, 10 * punch, -8 * punch),
        head=(10, 10 * punch, 0),
    )
    guard = defender.trunk.point("chest", (0.06, 0.02, 0.27))
    rest = attacker.trunk.point("chest", (-0.14, -0.10, 0.24))
    fist = rest + punch * (guard - rest)
    attacker = attacker.touch("right", fist, elbow=(-1, -0.6, 0), curl=1.0)
    attacker = attacker.hand("left", (0.13, -0.04, 0.27), elbow=(0.4, -1, 0), curl=1.0)
    belly = defender.trunk.point("pelvis", (-0.02, 0.20, 0.16))
    attacker = attacker.foot("right", _kick(attacker, belly, kick))
    low, far = 0.20 * kick, 0.02 * kick
    defender = defender.hand("left", (0.09, 0.03 - low, 0.23 + far), elbow=(0.5, -1, 0.1), curl=0.9)
    right = (-0.12, -0.02 - low, 0.25 + far)
    return attacker, defender.hand("right", right, elbow=(-0.5, -1, 0.1), curl=0.9)


def _kick(actor: Actor, target: Array, share: float) -> Step:
    """The right foot at a share of its way from the floor to `target`."""
    start, facing = actor.pose.feet["right"], actor.pose.facing_deg
    x, z = ahead(facing, 0.10 * actor.build.scale)
    ankle = np.array(start.ankle) + share * (target - [x, 0, z] - start.ankle)
    ankle += 0.3 * share * (1 - share) * UP
    pitch = start.pitch_deg + share * (-75 - start.pitch_deg)
    return Step(vector(ankle), facing, pitch, (0.3, 1.0, 0.0))


def _jump(phase: float, builds: Builds) -> Pair:
    """Side by side and hand in hand, two leaps, the second with legs apart; out of step."""
    facing, apart = 30 * (phase - 0.5), float(phase > 0.5)
    one = _jumper(builds[0], 2.0 * phase - 0.21, 1.0, facing, apart)
    two = _jumper(builds[1], 2.3 * phase - 0.42, -1.0, facing, apart)
    return _joined(one, two, ("left", "right"), (0.40, -0.10, 0.12), curl=0.7)


def _jumper(build: Build, beat: float, sign: float, facing: float, apart: float) -> Actor:
    """One of `_jump`: in the air while the wave over `beat` is positive, crouched otherwise."""
    air, crouch = max(0.0, _wave(beat)) ** 0.8, 0.05 + 0.16 * max(0.0, -_wave(beat))
    place, stance = (-0.44 * sign, 0.05 * sign), 0.11 + 0.16 * air * apart
    actor = Actor.standing(
        build, place, facing - 14 * sign, crouch=crouch - 0.32 * air, stance=stance
    ).bent(
        tilt=(60 * crouch, 0), spine=(40 * crouch - 8 * air, 0, 0), head=(-8 * air, 0, 12 * sign)
    )
    for side, other in SIDES.items():
        step = _tucked(build, actor.pose.feet[side], air, 1.0 if other == sign else 0.5)
        actor = actor.foot(side, step)
    up = (-0.36 * sign, -0.42 + 0.80 * air, 0.18 - 0.12 * air)
    outer = "right" if sign > 0 else "left"
    return actor.relaxed().hand(outer, up, elbow=(-sign, -0.3, -0.3), curl=0.9 * air)


def _tucked(build: Build, step: Step, air: float, tuck: float) -> Step:
    """A foot during a leap: off the floor, moved back, toes down."""
    s, (x, y, z) = build.scale, step.ankle
    back_x, back_z = s * ahead(step.yaw_deg, -0.20 * tuck * air)
    ankle = (x + back_x, y + s * air * (0.29 + 0.16 * tuck), z + back_z)
    return Step(ankle, step.yaw_deg, 45 * air * tuck)


def _piggyback(phase: float, builds: Builds) -> Pair:
    """One walks on an arc, bent forwards, and carries the other on the back."""
    facing, step = -35 + 70 * phase, 0.15 * _wave(phase, 1, 0.1)
    carrier = Actor.standing(
        builds[0], (-0.12 + 0.24 * phase, 0.02), facing, crouch=0.09, stride=step, lifted_deg=30
    ).bent(tilt=(14, 0), spine=(20, 0, 0), head=(-24, 0, 6))
    body = carrier.trunk
    seat = vector(body.point("pelvis", (0, 0.20, -0.235)))
    rider = Actor(builds[1], Pose(seat, facing)).bent(
        tilt=(16, 0), spine=(16, 0, 0), head=(-14, 10, -12)
    )
    for side, sign in SIDES.items():
        ankle = body.point("pelvis", (0.30 * sign, -0.20, 0.05 * step * sign))
        ankle -= 0.12 * builds[1].scale * UP
        knee = vector(body.frames["pelvis"] @ [0.75 * sign, 0.15, 1.0])
        rider = rider.foot(side, Step(vector(ankle), facing + 10 * sign, 30, knee))
        collar = body.point("chest", (-0.06 * sign, -0.16, 0.165))
        rider = rider.touch(side, collar, elbow=(0.8 * sign, -0.6, 0.3), curl=0.4)
        thigh = body.point("pelvis", (0.27 * sign, 0.10, -0.06))
        carrier = carrier.touch(side, thigh, elbow=(0.45 * sign, -1, -0.8), curl=0.6)
    return carrier, rider


def _joined(one: Actor, two: Actor, sides: tuple[str, str], offset: Vector, *, curl: float) -> Pair:
    """Two people holding hands midway between an offset from one chest and its mirror image."""
    x, y, z = offset
    middle = (one.trunk.point("chest", offset) + two.trunk.point("chest", (-x, y, z))) / 2
    outwards = 0.45 * SIDES[sides[0]]
    one = one.touch(sides[0], middle, elbow=(outwards, -1, -0.2), curl=curl)
    # One hand lies in the other, not inside it.
    return one, two.touch(sides[1], middle + 0.03 * UP, elbow=(-outwards, -1, -0.2), curl=curl)


def _wave(phase: float, cycles: float = 1.0, shift: float = 0.0) -> float:
    return float(np.sin(2 * np.pi * (cycles * phase + shift)))


def _hump(phase: float, centre: float, width: float) -> float:
    """1 at `centre`, 0 from `width` away, smooth between."""
    return float(np.cos(np.pi / 2 * np.clip((phase - centre) / width, -1, 1)) ** 2)


_ACTIONS: dict[str, tuple[Callable[[float, Builds], Pair], ...]] = {
    "dance": (_waltz, _twirl, _swing),
    "talk": (_talk,),
    "fight": (_fight,),
    "jump": (_jump,),
    "piggyback": (_piggyback,),
}
