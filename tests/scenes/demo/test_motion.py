"""Motion follows the action's name."""

from functools import cache

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.scenes.demo.people import motion
from stages.scenes.demo.people.figures import Person
from stages.scenes.demo.people.skeleton import SIDES, Skeleton, solve

WAYS = (
    ("dance", 0),
    ("dance", 1),
    ("dance", 2),
    ("talk", 0),
    ("fight", 0),
    ("jump", 0),
    ("piggyback", 0),
)
PHASES = (0.05, 0.25, 0.5, 0.75, 0.95)


@cache
def people() -> tuple[Person, Person]:
    prints = [np.full((96, 70, 3), 0.5)]
    return Person.of_pair(0, 0, 0, prints), Person.of_pair(0, 1, 0, prints)


def skeletons(action: str, phase: float, variant: int = 0) -> tuple[Skeleton, Skeleton]:
    one, two = (person.build for person in people())
    poses = motion.poses(action, phase, (one, two), variant)
    return solve(one, poses[0]), solve(two, poses[1])


def lowest(number: int, skeleton: Skeleton) -> float:
    return min(mesh.vertices[:, 1].min() for mesh in people()[number].meshes(skeleton))


@pytest.mark.parametrize(("action", "variant"), WAYS)
def test_nobody_sinks_into_the_floor_and_somebody_stands_on_it(action, variant):
    for phase in (0.0, 0.3, 0.6):
        heights = [lowest(k, body) for k, body in enumerate(skeletons(action, phase, variant))]
        assert min(heights) > -0.01
        if action != "jump":
            assert min(heights) < 0.01


@pytest.mark.parametrize(("action", "variant"), WAYS)
def test_hands_and_feet_are_within_reach(action, variant):
    builds = tuple(person.build for person in people())
    for phase in PHASES:
        for build, pose in zip(builds, motion.poses(action, phase, builds, variant), strict=True):
            joints = solve(build, pose).joints
            for side in SIDES:
                palm, ankle = joints[f"{side}_palm"], joints[f"{side}_ankle"]
                assert np.linalg.norm(palm - pose.hands[side].palm) < 0.08
                assert np.linalg.norm(ankle - pose.feet[side].ankle) < 0.02


@pytest.mark.parametrize(("action", "variant"), WAYS)
def test_something_moves_between_the_two_default_frames(action, variant):
    before, after = skeletons(action, 0.25, variant), skeletons(action, 0.75, variant)
    moved = [
        np.linalg.norm(a.joints[name] - b.joints[name])
        for a, b in zip(before, after, strict=True)
        for name in a.joints
    ]
    assert max(moved) > 0.05


def test_talk_is_a_metre_apart_face_to_face_and_calm():
    for phase in PHASES:
        one, two = skeletons("talk", phase)
        apart = two.trunk.pelvis - one.trunk.pelvis
        assert 0.85 < np.linalg.norm(apart) < 1.15
        fronts = one.trunk.frames["pelvis"][:, 2], two.trunk.frames["pelvis"][:, 2]
        assert fronts[0] @ apart > 0.9 * np.linalg.norm(apart)
        assert fronts[1] @ apart < -0.9 * np.linalg.norm(apart)
    rests = [skeletons("talk", phase)[0].trunk.pelvis for phase in PHASES]
    assert np.ptp(rests, axis=0).max() < 0.08


def test_jump_lifts_both_feet_of_each_and_lands():
    clear = np.array(
        [
            [lowest(k, body) for k, body in enumerate(skeletons("jump", phase))]
            for phase in (0.0, 0.12, 0.25, 0.5, 0.95)
        ]
    )
    assert (clear.max(axis=0) > 0.2).all()
    assert (clear.min(axis=0) < 0.01).all()
    in_default_frames = [
        max(lowest(k, body) for k, body in enumerate(skeletons("jump", phase)))
        for phase in (0.25, 0.75)
    ]
    assert min(in_default_frames) > 0.1


def test_piggyback_rider_sits_above_the_carriers_hips_and_near():
    for phase in PHASES:
        carrier, rider = skeletons("piggyback", phase)
        hips = max(carrier.joints[f"{side}_hip"][1] for side in SIDES)
        assert rider.trunk.pelvis[1] > hips
        assert np.linalg.norm(rider.trunk.pelvis - carrier.trunk.pelvis) < 0.5
        assert lowest(1, rider) > 0.2


def test_fight_lands_a_fist_and_then_a_foot_on_the_other():
    attacker, defender = skeletons("fight", 0.25)
    assert _distance(attacker.joints["right_palm"], 1, defender) < 0.10
    attacker, defender = skeletons("fight", 0.75)
    sole = attacker.joints["right_ankle"] + attacker.feet["right"] @ [0, -0.085, 0.06]
    assert _distance(sole, 1, defender) < 0.12
    assert attacker.joints["right_ankle"][1] > 0.7
    apart = skeletons("fight", 0.5)
    assert _distance(apart[0].joints["right_palm"], 1, apart[1]) > 0.15


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_dancers_hold_hands(variant):
    for phase in PHASES:
        one, two = skeletons("dance", phase, variant)
        gaps = [
            np.linalg.norm(one.joints[f"{side}_palm"] - two.joints[f"{far}_palm"])
            for side, far in (("left", "right"), ("right", "left"))
        ]
        assert min(gaps) < 0.06


def test_dances_of_the_v0_pairs_differ():
    ways = [skeletons("dance", 0.25, pair // 2)[0].joints["left_palm"] for pair in (0, 2, 17)]
    for k in range(3):
        assert np.linalg.norm(ways[k] - ways[k - 1]) > 0.1


def test_an_unknown_action_names_the_known_ones():
    builds = tuple(person.build for person in people())
    with pytest.raises(UserError, match="did you mean jump"):
        motion.poses("jumps", 0.5, builds)


def _distance(point: np.ndarray, number: int, skeleton: Skeleton) -> float:
    vertices = np.concatenate([mesh.vertices for mesh in people()[number].meshes(skeleton)])
    return float(np.linalg.norm(vertices - point, axis=1).min())
