"""Statistics of paired differences between two methods.

Scenes are the independent units. With few of them a bootstrap over scenes, or over pooled views,
covers far less than its nominal level; Student's t on the scenes' means keeps its level. Views of
one scene are correlated in time, so within a scene blocks are resampled, and the interval holds for
that scene only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Interval = tuple[float, float]
# Up to this many differences all choices of signs are tried: 65536 of them.
_MAX_EXACT = 16
_RANDOM_FLIPS = 20_000


def column_means(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Mean of each column to six decimals; None if a row lacks it: such means do not compare.

    >>> column_means([{"psnr": 20.0, "ssim": 0.8}, {"psnr": 21.0, "ssim": None}], ["psnr", "ssim"])
    {'psnr': 20.5, 'ssim': None}
    """
    columns = {name: [row[name] for row in rows] for name in names}
    return {
        name: None if None in column else round(sum(column) / len(column), 6)
        for name, column in columns.items()
    }


def t_quantile(freedom: int, confidence: float) -> float:
    """Half the width of Student's two-sided interval, in standard errors.

    >>> [round(t_quantile(freedom, 0.95), 3) for freedom in (1, 4)]
    [12.706, 2.776]
    """
    return float(stdtrit(freedom, 0.5 + confidence / 2))


def t_interval(differences: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """Student's interval of the mean of independent differences; None for fewer than two.

    >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return None
    reach = t_quantile(len(values) - 1, confidence)
    half = float(reach * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of a mean of zero if each difference is equally likely to have either sign.

    Exact up to 16 differences, else from random flips. The least possible p is 2 / 2^n.

    >>> sign_flip_p([0.2, 0.4, 0.1, 0.3])
    0.125
    """
    values = np.asarray(differences, np.float64)
    assert len(values), "no differences"
    signs = _signs(len(values), seed)
    # Sums that are equal in exact arithmetic differ in their last digits.
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= _MAX_EXACT:
        return float(extreme.mean())
    return float((extreme.sum() + 1) / (len(extreme) + 1))


def least_p(count: int) -> float:
    """The least p that `sign_flip_p` can give with `count` differences.

    >>> least_p(4)
    0.125
    """
    return 2.0 / 2**count if count <= _MAX_EXACT else 1.0 / (_RANDOM_FLIPS + 1)


def win_rate(differences: ArrayLike, better: int) -> float:
    """Share of differences with the better sign (+1 or -1); a tie counts half.

    >>> win_rate([0.5, -0.1, 0.0, 2.0], better=+1)
    0.625
    """
    signs = np.sign(np.asarray(differences, np.float64)) * better
    return float(np.mean((signs + 1) / 2))


def block_interval(
    sequences: Sequence[ArrayLike],
    confidence: float = 0.95,
    *,
    length: int = 0,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of serially dependent values.

    Moving-block bootstrap (Kuensch 1989) in its circular form (Politis and Romano 1992), where
    every value is in equally many blocks.

    Args:
        sequences: Values in order, such as those of one camera over time; blocks stay within one.
        confidence: Of the interval.
        length: Of a block; 0 takes the cube root of the longest sequence.
        draws: Bootstrap samples.
        seed: Of the random numbers.
    """
    arrays = [np.asarray(one, np.float64) for one in sequences if len(np.atleast_1d(one))]
    assert arrays, "no values"
    length = length or max(1, round(max(map(len, arrays)) ** (1 / 3)))
    rng = np.random.default_rng(seed)
    totals = sum(_block_sums(one, min(length, len(one)), draws, rng) for one in arrays)
    means = totals / sum(map(len, arrays))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _signs(count: int, seed: int) -> NDArray[np.float64]:
    """Rows of +1 and -1: all 2^count of them, or random ones if these are too many."""
    if count > _MAX_EXACT:
        return np.random.default_rng(seed).choice([-1.0, 1.0], (_RANDOM_FLIPS, count))
    bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    return 1.0 - 2.0 * bits


def _block_sums(
    values: NDArray[np.float64], length: int, draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Sums over resampled copies of one sequence, [draws]; the last block is cut to fit."""
    count = len(values)
    starts = rng.integers(count, size=(draws, -(-count // length)))
    indices = (starts[..., None] + np.arange(length)).reshape(draws, -1)[:, :count] % count
    return values[indices].sum(axis=1)
