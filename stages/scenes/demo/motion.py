"""What two people do: joint angles over the phase of an action, 0 to 1, by the action's name."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from stages.run.errors import UserError
from stages.run.params import did_you_mean
from stages.scenes.demo.figures import PELVIS_HEIGHT, Pose, lowest, solve

Pair = tuple[Pose, Pose]


def poses(action: str, phase: float) -> Pair:
    """Both people at a phase in [0, 1]. Raises UserError for an action that is not modelled."""
    if action not in _ACTIONS:
        raise UserError(
            "demo.scenes", f"action {action!r}", expected="one of " + ", ".join(_ACTIONS),
            hint=did_you_mean(action, list(_ACTIONS)),
        )  # fmt: skip
    return _ACTIONS[action](phase)


def grounded(pose: Pose, clearance: float = 0.0) -> Pose:
    """The same pose, raised or lowered until its lowest sole is `clearance` above the floor."""
    return replace(pose, height=pose.height + clearance - lowest(solve(pose)))


def _wave(phase: float, cycles: float = 1.0, shift: float = 0.0) -> float:
    return float(np.sin(2 * np.pi * (cycles * phase + shift)))


def _both(**joints: float) -> dict[str, float]:
    return {f"{side}_{name}": angle for name, angle in joints.items() for side in ("left", "right")}


def _dance(phase: float) -> Pair:
    """A couple that turns about its centre, hands joined, legs stepping in turn."""
    turn, step = 70 * phase, 18 * _wave(phase, 2)
    place = 0.36 * np.array([np.sin(np.radians(turn)), np.cos(np.radians(turn))])
    couple = []
    for sign in (1.0, -1.0):
        joints = _both(shoulder_flex=58, elbow_flex=38, arm_raise=24)
        joints |= {"left_shoulder_flex": 95 if sign > 0 else 60, "right_arm_raise": 50}
        joints |= {"left_hip_flex": sign * step, "right_hip_flex": -sign * step}
        joints |= {f"{'left' if sign * step > 0 else 'right'}_knee_flex": abs(step)}
        facing = turn + (180 if sign > 0 else 0)
        pose = Pose(tuple(sign * place), facing, sway_deg=sign * 6 * _wave(phase, 2), joints=joints)
        couple.append(grounded(pose))
    return couple[0], couple[1]


def _talk(phase: float) -> Pair:
    """Two people a metre apart; one explains with the hands, one listens and nods."""
    gesture = 30 * _wave(phase, 1.5)
    speaker = Pose(
        (-0.5, 0.0), 90, sway_deg=3 * _wave(phase), nod_deg=4 * _wave(phase, 3),
        joints={"right_shoulder_flex": 35 + gesture, "right_elbow_flex": 80,
                "left_shoulder_flex": 22 - 0.6 * gesture, "left_elbow_flex": 65,
                "right_arm_raise": 18},
    )  # fmt: skip
    listener = Pose(
        (0.5, 0.06), -92, nod_deg=8 + 6 * _wave(phase, 2), sway_deg=-2 * _wave(phase),
        joints={"left_shoulder_flex": 30, "left_elbow_flex": 105, "left_arm_turn": 50,
                "right_shoulder_flex": 26, "right_elbow_flex": 112, "right_arm_turn": 50},
    )  # fmt: skip
    return grounded(speaker), grounded(listener)


def _fight(phase: float) -> Pair:
    """One punches and steps in, the other blocks and leans back."""
    reach = 0.5 + 0.5 * _wave(phase, 1, -0.25)
    attacker = Pose(
        (-0.46 + 0.14 * reach, 0.0), 90, lean_deg=6 + 14 * reach, twist_deg=30 * reach,
        joints={"right_shoulder_flex": 40 + 48 * reach, "right_elbow_flex": 120 - 112 * reach,
                "left_shoulder_flex": 50, "left_elbow_flex": 115,
                "left_hip_flex": 28, "left_knee_flex": 25, "right_hip_flex": -22,
                "right_knee_flex": 8},
    )  # fmt: skip
    defender = Pose(
        (0.40, 0.05), -90, lean_deg=4 - 16 * reach, sway_deg=6 * reach,
        joints={"left_shoulder_flex": 78, "left_elbow_flex": 105, "left_arm_raise": 22,
                "right_shoulder_flex": 60, "right_elbow_flex": 118,
                "left_hip_flex": -18, "right_hip_flex": 26, "right_knee_flex": 30},
    )  # fmt: skip
    return grounded(attacker), grounded(defender)


def _jump(phase: float) -> Pair:
    """Two people side by side jump, a little out of step, arms swinging up."""
    couple = []
    for sign, shift in ((1.0, 0.0), (-1.0, 0.15)):
        # The crouch comes first, then flight: a parabola over the middle of the action.
        flight = (phase - shift - 0.2) / 0.6
        air = max(0.0, 4 * flight * (1 - flight))
        crouch = 35 * (1 - min(1.0, 3 * air))
        joints = _both(shoulder_flex=20 + 130 * air, elbow_flex=20, arm_raise=14 + 20 * air)
        joints |= _both(hip_flex=crouch + 30 * air, knee_flex=1.6 * crouch + 55 * air)
        pose = Pose((sign * 0.45, 0.05 * sign), 20 * sign, lean_deg=0.4 * crouch, joints=joints)
        couple.append(grounded(pose, 0.34 * air))
    return couple[0], couple[1]


def _piggyback(phase: float) -> Pair:
    """One carries the other on the back and walks in a small bow."""
    step = 24 * _wave(phase, 1, 0.1)
    facing = -20 + 40 * phase
    carrier_joints = _both(shoulder_flex=12, elbow_flex=85, arm_raise=26)
    carrier_joints |= {"left_hip_flex": step, "right_hip_flex": -step}
    carrier_joints |= {"left_knee_flex": 14 + max(0, step), "right_knee_flex": 14 + max(0, -step)}
    carrier = grounded(
        Pose((0.0, 0.15 * phase), facing, lean_deg=20, joints=carrier_joints)
    )  # fmt: skip
    back = np.radians(facing)
    place = np.array(carrier.place) - 0.24 * np.array([np.sin(back), np.cos(back)])
    rider_joints = _both(shoulder_flex=72, elbow_flex=32, arm_raise=4)
    rider_joints |= _both(hip_flex=72, leg_raise=26, knee_flex=80)
    rider = Pose(
        tuple(place), facing, height=carrier.height + 0.24, lean_deg=18, nod_deg=-6,
        joints=rider_joints,
    )  # fmt: skip
    return carrier, rider


_ACTIONS: dict[str, Callable[[float], Pair]] = {
    "dance": _dance,
    "talk": _talk,
    "fight": _fight,
    "jump": _jump,
    "piggyback": _piggyback,
}

assert 0.8 < PELVIS_HEIGHT < 1.1, "poses are written for an adult's pelvis height"
