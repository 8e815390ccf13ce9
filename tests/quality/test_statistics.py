"""Paired statistics: closed forms, exact enumeration, and coverage by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from stages.quality.statistics import (
    block_interval,
    least_p,
    sign_flip_p,
    t_interval,
    win_rate,
)


def correlated(rng: np.random.Generator, count: int, rho: float) -> np.ndarray:
    """A stationary series of unit variance whose neighbours correlate by rho."""
    values = rng.normal(size=count)
    for index in range(1, count):
        values[index] = rho * values[index - 1] + np.sqrt(1 - rho**2) * values[index]
    return values


def test_t_interval_equals_scipy() -> None:
    values = np.array([0.31, -0.05, 0.22, 0.4])
    expected = stats.t.interval(0.9, 3, values.mean(), stats.sem(values))
    assert t_interval(values, 0.9) == pytest.approx(expected)


def test_t_interval_needs_two_scenes() -> None:
    assert t_interval([0.3]) is None
    assert t_interval([0.3, 0.3]) == pytest.approx((0.3, 0.3))


def test_sign_flip_counts_every_choice_of_signs() -> None:
    values = [0.4, -0.1, 0.25, 0.03, -0.2]
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    expected = np.mean(np.array(sums) >= abs(sum(values)) - 1e-12)
    assert sign_flip_p(values) == expected
    assert sign_flip_p([-value for value in values]) == expected


@pytest.mark.parametrize(("count", "least"), [(3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_least_p_is_reached_when_all_agree(count: int, least: float) -> None:
    assert sign_flip_p(0.1 + np.arange(count)) == least == least_p(count)


def test_sign_flip_of_no_difference_is_one() -> None:
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_sums_that_are_equal_on_paper_are_equal_and_no_others(unit: float) -> None:
    """In whole numbers 10 of the 16 choices of signs give (7, 1, 2, -3) a sum of 7 or more."""
    assert sign_flip_p([unit * value for value in (0.7, 0.1, 0.2, -0.3)]) == 0.625
    assert sign_flip_p([unit * value for value in (-0.4, -0.4, -0.4, -0.3)]) == 0.125
    assert sign_flip_p([unit * value for value in (1.0, 1.0, 1.0, 1e-6)]) == 0.125


def test_sign_flip_of_many_is_random_and_near_the_t_test() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 40)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert sign_flip_p(values, seed=3) == pytest.approx(expected, abs=0.01)
    assert sign_flip_p(values, seed=3) == sign_flip_p(values, seed=3)
    assert sign_flip_p(np.full(40, 1.0)) == least_p(40)


def test_win_rate_follows_the_better_direction() -> None:
    assert win_rate([-0.1, -0.2, 0.3, 0.0], better=-1) == 0.625
    assert win_rate([-0.1, -0.2, 0.3, 0.0], better=+1) == 0.375


def test_block_interval_of_constant_values_is_a_point() -> None:
    assert block_interval([[0.5] * 6, [0.5] * 6]) == pytest.approx((0.5, 0.5))


def test_block_interval_is_centred_and_repeatable() -> None:
    values = correlated(np.random.default_rng(0), 200, 0.5)
    low, high = block_interval([values], draws=5000)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.02)
    assert (low, high) == block_interval([values], draws=5000)
    assert (low, high) != block_interval([values], draws=5000, seed=1)


def test_every_value_is_in_equally_many_blocks() -> None:
    """Blocks that end at the sequence's end would draw its last values less often, or more."""
    low, high = block_interval([np.arange(12.0)], length=5, draws=40_000)
    assert (low + high) / 2 == pytest.approx(5.5, abs=0.1)


def test_blocks_are_as_long_as_the_cube_root_of_the_longest_sequence() -> None:
    sequences = [correlated(np.random.default_rng(seed), 30 * seed + 4, 0.8) for seed in (1, 2)]
    ends = {length: block_interval(sequences, length=length) for length in range(9)}
    assert [length for length in range(1, 9) if ends[length] == ends[0]] == [4]


def test_blocks_do_not_cross_sequences() -> None:
    """Each sequence is drawn from itself, so a difference between two is not chance."""
    low, high = block_interval([[0.0] * 5, [1.0] * 5], length=3)
    assert (low, high) == (0.5, 0.5)


def test_blocks_widen_the_interval_of_correlated_values() -> None:
    values = correlated(np.random.default_rng(2), 400, 0.9)
    narrow = np.diff(block_interval([values], length=1))
    wide = np.diff(block_interval([values], length=20))
    assert wide > 2 * narrow


def test_t_covers_with_four_scenes_where_pooled_views_do_not() -> None:
    """Four scenes of 24 correlated views: scenes differ by 0.25 dB, views by 0.6 dB."""
    rng = np.random.default_rng(0)
    inside_t = inside_pooled = 0
    runs = 1000
    for _ in range(runs):
        scenes = [0.3 + 0.25 * rng.normal() + 0.6 * correlated(rng, 24, 0.8) for _ in range(4)]
        low, high = t_interval([scene.mean() for scene in scenes])
        inside_t += low <= 0.3 <= high
        low, high = block_interval([np.concatenate(scenes)], length=1, draws=300)
        inside_pooled += low <= 0.3 <= high
    assert 0.92 <= inside_t / runs <= 0.975
    assert inside_pooled / runs < 0.6


def test_blocks_cover_the_mean_of_one_scene_better_than_single_views() -> None:
    rng = np.random.default_rng(1)
    inside = {1: 0, 0: 0}
    runs = 400
    for _ in range(runs):
        cameras = [correlated(rng, 60, 0.6) for _ in range(2)]
        for length in inside:
            low, high = block_interval(cameras, length=length, draws=300)
            inside[length] += low <= 0 <= high
    assert inside[1] / runs < 0.75
    assert inside[0] / runs > 0.8
