"""Limbs keep their lengths, bend the right way and reach what they can."""

from dataclasses import replace

import numpy as np
import pytest

from stages.scenes.demo.people.actor import Actor
from stages.scenes.demo.people.skeleton import (
    ANKLE_HEIGHT,
    SIDES,
    Build,
    bend,
    planted,
    solve,
    trunk,
)

BUILD = Build(height=1.75)
STANDING = Actor.standing(BUILD, (0.2, -0.1), 30.0)


@pytest.mark.parametrize("target", [[0.3, -0.2, 0.1], [0.01, 0.0, 0.0], [5.0, 1.0, 0.0]])
def test_bend_keeps_both_lengths(target):
    middle, end = bend(np.zeros(3), np.array(target), 0.3, 0.25, np.array([0.0, 0.0, 1.0]))
    assert np.linalg.norm(middle) == pytest.approx(0.3)
    assert np.linalg.norm(end - middle) == pytest.approx(0.25, abs=2e-3)


def test_bend_reaches_what_is_near_and_points_at_what_is_far():
    near, far = np.array([0.2, 0.3, 0.0]), np.array([0.0, -9.0, 0.0])
    np.testing.assert_allclose(bend(np.zeros(3), near, 0.3, 0.3, np.eye(3)[2])[1], near)
    end = bend(np.zeros(3), far, 0.3, 0.3, np.eye(3)[2])[1]
    np.testing.assert_allclose(end, [0, -0.6, 0], atol=2e-3)


def test_knees_bend_forwards_and_elbows_backwards():
    skeleton = solve(BUILD, Actor.standing(BUILD, (0, 0), 0.0, crouch=0.2).pose)
    for side in SIDES:
        hip, knee = (skeleton.joints[f"{side}_{name}"] for name in ("hip", "knee"))
        shoulder, elbow = (skeleton.joints[f"{side}_{name}"] for name in ("shoulder", "elbow"))
        assert knee[2] > hip[2] + 0.1
        assert elbow[2] < shoulder[2]


def test_left_is_at_the_left_of_the_facing_direction():
    joints = solve(BUILD, Actor.standing(BUILD, (0, 0), 0.0).pose).joints  # looks to +z
    assert joints["left_shoulder"][0] > 0.1 > -0.1 > joints["right_shoulder"][0]
    joints = solve(BUILD, Actor.standing(BUILD, (0, 0), 90.0).pose).joints  # looks to +x
    assert joints["left_hip"][2] < joints["right_hip"][2]


def test_crown_is_at_the_persons_height():
    tall = Build(height=1.9)
    top = trunk(tall, Actor.standing(tall, (0, 0), 0.0, crouch=0.0).pose).point(
        "head", [0, 0.116, 0]
    )
    assert top[1] == pytest.approx(1.9, abs=0.04)


@pytest.mark.parametrize("heel_deg", [0.0, 20.0, 50.0])
def test_a_planted_toe_stays_where_it_is_when_the_heel_rises(heel_deg):
    flat, lifted = planted(BUILD, 0.3, 0.1, 40.0), planted(BUILD, 0.3, 0.1, 40.0, heel_deg)
    assert flat.ankle == pytest.approx((0.3, ANKLE_HEIGHT, 0.1))
    toe = STANDING.foot("left", lifted)
    skeleton = solve(BUILD, toe.pose)
    sole = np.array(lifted.ankle) + skeleton.feet["left"] @ [0, -ANKLE_HEIGHT, 0.192]
    expected = np.array(flat.ankle) + solve(BUILD, STANDING.foot("left", flat).pose).feet[
        "left"
    ] @ [0, -ANKLE_HEIGHT, 0.192]
    np.testing.assert_allclose(sole, expected, atol=1e-9)


def test_palm_reaches_its_target():
    place = STANDING.trunk.point("chest", (0.2, -0.2, 0.35))
    skeleton = solve(BUILD, STANDING.touch("left", place).pose)
    np.testing.assert_allclose(skeleton.joints["left_palm"], place, atol=1e-9)


def test_spine_is_straight_when_upright_and_shorter_when_bent():
    upright = trunk(BUILD, STANDING.pose)
    np.testing.assert_allclose(upright.spine(0.5)[0] - upright.pelvis, [0, 0.5, 0], atol=1e-9)
    bent = trunk(BUILD, replace(STANDING.pose, spine_deg=(60, 0, 0)))
    reach = np.linalg.norm(bent.spine(0.5)[0] - bent.pelvis)
    assert 0.4 < reach < 0.495
    assert bent.frames["chest"][1, 1] == pytest.approx(np.cos(np.radians(60)))
