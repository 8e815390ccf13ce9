"""What two people do: a pose of each over the phase of an action, 0 to 1, by the action's name.

Places are metres on the floor plan (x, z) around the room's middle; hands and feet are put where
they touch the floor, the partner or the air, and the skeleton bends its limbs to reach.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from stages.run.errors import UserError
from stages.run.params import did_you_mean
from stages.scenes.cameras import Array
from stages.scenes.demo.skeleton import (
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
)  # fmt: skip

Builds = tuple[Build, Build]
Pair = tuple[Pose, Pose]


def poses(action: str, phase: float, builds: Builds, variant: int = 0) -> Pair:
    """Both people at a phase in [0, 1]. Raises UserError for an action that is not modelled.

    `variant` chooses between several ways to do the same.
    """
    if action not in _ACTIONS:
        raise UserError(
            "demo.scenes", f"action {action!r}", expected="one of " + ", ".join(_ACTIONS),
            hint=did_you_mean(action, list(_ACTIONS)),
        )  # fmt: skip
    ways = _ACTIONS[action]
    return ways[variant % len(ways)](phase, builds)


def _wave(phase: float, cycles: float = 1.0, shift: float = 0.0) -> float:
    return float(np.sin(2 * np.pi * (cycles * phase + shift)))


def _hump(phase: float, centre: float, width: float) -> float:
    """1 at `centre`, 0 from `width` away, smooth between."""
    return float(np.cos(np.pi / 2 * np.clip((phase - centre) / width, -1, 1)) ** 2)


def _ahead(facing_deg: float, front: float, left: float = 0.0) -> Array:
    """An offset (x, z) on the floor plan of someone who faces that way."""
    angle = np.radians(facing_deg)
    return front * np.array([np.sin(angle), np.cos(angle)]) + left * np.array(
        [np.cos(angle), -np.sin(angle)]
    )


def _standing(
    build: Build,
    place: Array | tuple[float, float],
    facing_deg: float,
    *,
    crouch: float = 0.02,
    stance: float = 0.11,
    stride: float = 0.0,
    lifted: float = 0.0,
    shift: float = 0.0,
) -> Pose:
    """On both feet, arms at the sides. `crouch` lowers the pelvis, `stance` is half the feet's
    distance, `stride` puts the left foot forwards, `lifted` raises the heel of the rear foot
    (degrees), `shift` moves the pelvis over the left foot; metres.
    """  # fmt: skip
    s, middle = build.scale, np.asarray(place, float)
    feet = {}
    for side, sign in SIDES.items():
        x, z = middle + _ahead(facing_deg, s * sign * stride, s * sign * stance)
        rear = sign * stride < 0
        feet[side] = planted(build, x, z, facing_deg + 9 * sign, lifted if rear else 0.0)
    x, z = middle + _ahead(facing_deg, 0.0, s * shift)
    pelvis = (float(x), s * (HIP_HEIGHT + 0.045 - crouch), float(z))
    return _relaxed(build, Pose(pelvis, facing_deg, feet=feet))


def _relaxed(build: Build, pose: Pose) -> Pose:
    """The same pose with both arms hanging."""
    for side, sign in SIDES.items():
        pose = _hand(build, pose, side, (0.25 * sign, -0.62, 0.05))
    return pose


def _hand(
    build: Build,
    pose: Pose,
    side: str,
    offset: Vector,
    *,
    elbow: Vector | None = None,
    curl: float = 0.25,
) -> Pose:
    """The same pose with a palm at an offset from the base of the neck, in the chest's frame."""  # fmt: skip
    return _reach(pose, side, trunk(build, pose).point("chest", offset), elbow=elbow, curl=curl)


def _reach(
    pose: Pose, side: str, palm: Array, *, elbow: Vector | None = None, curl: float = 0.25
) -> Pose:
    """The same pose with a palm at a place of the world."""
    reach = Reach(tuple(np.asarray(palm, float).tolist()), elbow, curl)
    return replace(pose, hands={**pose.hands, side: reach})


def _foot(pose: Pose, side: str, step: Step) -> Pose:
    return replace(pose, feet={**pose.feet, side: step})


def _bodies(builds: Builds, pair: Pair) -> tuple[Trunk, Trunk]:
    return trunk(builds[0], pair[0]), trunk(builds[1], pair[1])


def _talk(phase: float, builds: Builds) -> Pair:
    """A metre apart and face to face: one explains with the hands, the other has folded arms."""
    beat = _wave(phase)
    speaker = _standing(builds[0], (-0.50, 0.02), 88, shift=0.02 * beat)
    speaker = replace(
        speaker, spine_deg=(4, 2 * beat, 6 * beat), head_deg=(3 + 4 * _wave(phase, 3), 2 * beat, 0)
    )
    lift = 0.06 * beat
    speaker = _hand(
        builds[0], speaker, "right", (-0.20, -0.20 + lift, 0.34), elbow=(-0.2, -1, -0.4), curl=0.1
    )
    speaker = _hand(
        builds[0], speaker, "left", (0.24, -0.30 - lift, 0.30), elbow=(0.2, -1, -0.4), curl=0.15
    )
    listener = _standing(builds[1], (0.50, -0.02), -94, shift=-0.03, stance=0.13)
    listener = replace(
        listener,
        spine_deg=(-2, -3, 0),
        head_deg=(6 + 5 * _wave(phase), 6 * _wave(phase, 1, 0.2), 4),
    )
    folded = {"left": ((-0.13, -0.27, 0.17), (1, -0.5, 0.1)),
              "right": ((0.10, -0.32, 0.19), (-1, -0.5, 0.1))}  # fmt: skip
    for side, (offset, elbow) in folded.items():
        listener = _hand(builds[1], listener, side, offset, elbow=elbow, curl=0.3)
    return speaker, listener


def _waltz(phase: float, builds: Builds) -> Pair:
    """A couple in closed hold that turns about its centre."""
    turn, step = -35 + 110 * phase, 0.09 * _wave(phase)
    lead = _standing(
        builds[0], _ahead(turn, -0.24), turn, crouch=0.04, stride=step + 0.04, lifted=25
    )
    follow = _standing(
        builds[1], _ahead(turn, 0.24), turn + 180, crouch=0.04, stride=-step - 0.04, lifted=30
    )
    sway = 6 * _wave(phase, 1, 0.1)
    lead = replace(lead, spine_deg=(0, sway, 0), head_deg=(4, 0, 25))
    follow = replace(follow, spine_deg=(-7, -sway, 0), head_deg=(-6, 8, 30))
    body, other = _bodies(builds, (lead, follow))
    joined = (body.point("chest", (0.58, -0.02, 0.20)) + other.point("chest", (-0.58, 0, 0.2))) / 2
    lead = _reach(lead, "left", joined, elbow=(0.3, -1, -0.2), curl=0.5)
    follow = _reach(follow, "right", joined + [0, 0.03, 0], elbow=(-0.3, -1, -0.2), curl=0.5)
    lead = _reach(lead, "right", other.point("chest", (0.10, -0.22, -0.135)), elbow=(-1, -0.2, 0))
    follow = _reach(follow, "left", body.point("chest", (-0.16, -0.02, -0.03)), elbow=(1, -0.3, 0))
    return lead, follow


def _twirl(phase: float, builds: Builds) -> Pair:
    """One turns under the other's raised arm."""
    spin = 40 + 300 * phase
    lead = _standing(builds[0], (-0.42, 0.05), 75, stride=0.10, lifted=20, crouch=0.04)
    lead = replace(lead, spine_deg=(-3, -8, 10), head_deg=(-8, 0, 0))
    partner = _standing(builds[1], (0.30, 0.0), spin, stance=0.05, stride=0.08, lifted=40)
    partner = replace(partner, spine_deg=(-5, 6 * _wave(phase), 0), head_deg=(-6, 0, 12))
    body, other = _bodies(builds, (lead, partner))
    joined = 0.4 * body.origin("head") + 0.6 * other.origin("head") + [0, 0.30, 0]
    lead = _reach(lead, "left", joined, elbow=(1, -0.4, 0.3), curl=0.5)
    partner = _reach(partner, "right", joined - [0, 0.03, 0], elbow=(-1, -0.2, 0.4), curl=0.5)
    flow = 0.10 * _wave(phase, 1, 0.1)
    lead = _hand(
        builds[0], lead, "right", (-0.50, -0.22 + flow, 0.12), elbow=(0, -1, -0.5), curl=0.1
    )
    partner = _hand(builds[1], partner, "left", (0.52, -0.12 - flow, 0.15), elbow=(0, -1, -0.3),
                    curl=0.1)  # fmt: skip
    return lead, partner


def _swing(phase: float, builds: Builds) -> Pair:
    """Both hands joined at arm's length, leaning back and kicking in turn."""
    turn, kick = 20 + 50 * phase, _wave(phase, 1)
    couple = []
    for number, sign in enumerate((1, -1)):
        facing = turn + (0 if number == 0 else 180)
        build, step = builds[number], sign * kick
        pose = _standing(build, _ahead(turn, -0.44 * sign), facing, crouch=0.05, shift=-0.05 * step)
        pose = replace(
            pose, tilt_deg=(-8, 0), spine_deg=(-6, 4 * step, 5 * step), head_deg=(6, 0, 0)
        )
        side = "left" if step > 0 else "right"
        at = np.array(pose.feet[side].ankle)
        x, z = at[[0, 2]] + _ahead(facing, -0.26 * abs(step))
        lifted = Step((float(x), float(at[1] + 0.28 * abs(step)), float(z)), facing, 55 * abs(step))
        couple.append(_foot(pose, side, lifted))
    lead, partner = couple
    body, other = _bodies(builds, (lead, partner))
    for side, far, sign in (("left", "right", 1), ("right", "left", -1)):
        offset = np.array((0.22 * sign, -0.30 - 0.05 * sign * kick, 0.44))
        joined = (body.point("chest", offset) + other.point("chest", offset * [-1, 1, 1])) / 2
        lead = _reach(lead, side, joined, elbow=(0.6 * sign, -1, 0), curl=0.6)
        partner = _reach(partner, far, joined + [0, 0.03, 0], elbow=(-0.6 * sign, -1, 0), curl=0.6)
    return lead, partner


def _fight(phase: float, builds: Builds) -> Pair:
    """First a punch that meets the guard, then a kick to the body."""
    punch, kick = _hump(phase, 0.25, 0.3), _hump(phase, 0.75, 0.3)
    attacker = _standing(
        builds[0], (-0.40 - 0.14 * kick, 0.0), 90, crouch=0.09, stance=0.09, stride=0.17,
        lifted=25, shift=0.02,
    )  # fmt: skip
    attacker = replace(
        attacker, tilt_deg=(8 * punch - 12 * kick, -6 * kick), head_deg=(6, 0, -20 * punch),
        spine_deg=(8 - 10 * kick, 0, 22 * punch - 10 * kick),
    )  # fmt: skip
    defender = _standing(
        builds[1], (0.36 + 0.12 * kick, 0.04), -90, crouch=0.08, stance=0.12, stride=0.15, lifted=20
    )
    defender = replace(
        defender, tilt_deg=(-6 * punch + 22 * kick, 0), head_deg=(10, 10 * punch, 0),
        spine_deg=(-9 * punch + 26 * kick, 10 * punch, -8 * punch),
    )  # fmt: skip
    other = trunk(builds[1], defender)
    guard = other.point("chest", (0.06, 0.02, 0.27))
    rest = trunk(builds[0], attacker).point("chest", (-0.14, -0.10, 0.24))
    attacker = _reach(
        attacker, "right", rest + punch * (guard - rest), elbow=(-1, -0.6, 0), curl=1.0
    )
    attacker = _hand(builds[0], attacker, "left", (0.13, -0.04, 0.27), elbow=(0.4, -1, 0), curl=1.0)
    belly = other.point("pelvis", (-0.02, 0.20, 0.16))
    attacker = _foot(attacker, "right", _kick(builds[0], attacker, belly, kick))
    low = kick * np.array([0, -0.20, 0.02])
    for side, offset in (("left", (0.09, 0.03, 0.23)), ("right", (-0.12, -0.02, 0.25))):
        defender = _hand(builds[1], defender, side, tuple(np.array(offset) + low),
                         elbow=(0.5 if side == "left" else -0.5, -1, 0.1), curl=0.9)  # fmt: skip
    return attacker, defender


def _kick(build: Build, pose: Pose, target: Array, share: float) -> Step:
    """The right foot on its way from the floor to a sole's touch at `target`."""
    start = pose.feet["right"]
    ankle = target - build.scale * np.array([*_ahead(pose.facing_deg, 0.10), 0])[[0, 2, 1]]
    at = np.array(start.ankle) + share * (ankle - start.ankle) + [0, 0.3 * share * (1 - share), 0]
    pitch = start.pitch_deg + share * (-75 - start.pitch_deg)
    return Step(tuple(at.tolist()), pose.facing_deg, pitch, (0.3, 1.0, 0.0))


def _jump(phase: float, builds: Builds) -> Pair:
    """Side by side and hand in hand, two leaps, the second with legs apart; out of step."""
    couple = []
    for number, sign in enumerate((1, -1)):
        build, beat = builds[number], (2 + 0.3 * number) * phase - 0.21 * (1 + number)
        air = max(0.0, _wave(beat)) ** 0.8
        crouch = 0.05 + 0.16 * max(0.0, -_wave(beat))
        facing = -14 * sign + 30 * (phase - 0.5)
        apart = 0.11 + 0.16 * air * (phase > 0.5)
        pose = _standing(build, (-0.44 * sign, 0.05 * sign), facing, crouch=crouch - 0.38 * air,
                         stance=apart)  # fmt: skip
        feet = {side: _tucked(build, step, air, 0.5 + 0.5 * (k == number))
                for k, (side, step) in enumerate(pose.feet.items())}  # fmt: skip
        pose = replace(
            pose, feet=feet, tilt_deg=(60 * crouch, 0), spine_deg=(40 * crouch - 8 * air, 0, 0),
            head_deg=(-8 * air, 0, 12 * sign),
        )  # fmt: skip
        pose = _relaxed(build, pose)
        outer = "right" if sign > 0 else "left"
        up = (-0.36 * sign, -0.42 + 0.80 * air, 0.18 - 0.12 * air)
        couple.append(_hand(build, pose, outer, up, elbow=(-sign, -0.3, -0.3), curl=0.9 * air))
    first, second = couple
    one, two = _bodies(builds, (first, second))
    joined = (one.point("chest", (0.40, -0.10, 0.12)) + two.point("chest", (-0.40, -0.1, 0.12))) / 2
    first = _reach(first, "left", joined, elbow=(0.2, -1, -0.3), curl=0.7)
    return first, _reach(second, "right", joined + [0, 0.03, 0], elbow=(-0.2, -1, -0.3), curl=0.7)


def _tucked(build: Build, step: Step, air: float, tuck: float) -> Step:
    """A foot that follows the leap: up from the floor, back and with its toes down."""
    s, (x, y, z) = build.scale, step.ankle
    back = _ahead(step.yaw_deg, -0.20 * tuck * air)
    raised = y + s * air * (0.34 + 0.16 * tuck)
    place = (float(x + s * back[0]), float(raised), float(z + s * back[1]))
    return Step(place, step.yaw_deg, 45 * air * tuck)


def _piggyback(phase: float, builds: Builds) -> Pair:
    """One walks in a bow, bent forwards, and carries the other on the back."""
    facing, step = -35 + 70 * phase, 0.15 * _wave(phase, 1, 0.1)
    place = np.array([-0.12 + 0.24 * phase, 0.02])
    carrier = _standing(builds[0], place, facing, crouch=0.09, stride=step, lifted=30)
    carrier = replace(carrier, tilt_deg=(14, 0), spine_deg=(20, 0, 0), head_deg=(-24, 0, 6))
    body = trunk(builds[0], carrier)
    seat = body.point("pelvis", (0, 0.20, -0.235))
    rider = Pose(
        tuple(seat.tolist()),
        facing,
        tilt_deg=(16, 0),
        spine_deg=(16, 0, 0),
        head_deg=(-14, 10, -12),
    )
    scale = builds[1].scale
    for side, sign in SIDES.items():
        knee = np.array(body.frames["pelvis"] @ [0.75 * sign, 0.15, 1.0])
        ankle = body.point("pelvis", (0.30 * sign, -0.20, 0.0 + 0.05 * step * sign))
        ankle = ankle + scale * np.array([0, -0.12, 0])
        rider = _foot(
            rider, side, Step(tuple(ankle.tolist()), facing + 10 * sign, 30, tuple(knee.tolist()))
        )
        chest = body.point("chest", (-0.06 * sign, -0.16, 0.165))
        rider = _reach(rider, side, chest, elbow=(0.8 * sign, -0.6, 0.3), curl=0.4)
        thigh = body.point("pelvis", (0.27 * sign, 0.10, -0.06))
        carrier = _reach(carrier, side, thigh, elbow=(0.8 * sign, -0.2, -1), curl=0.6)
    return carrier, rider


_ACTIONS: dict[str, tuple[Callable[[float, Builds], Pair], ...]] = {
    "dance": (_waltz, _twirl, _swing),
    "talk": (_talk,),
    "fight": (_fight,),
    "jump": (_jump,),
    "piggyback": (_piggyback,),
}
