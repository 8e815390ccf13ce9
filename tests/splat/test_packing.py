"""Packed Gaussians, decoded by the documented layout, agree to within a quantisation step."""

import gzip
from dataclasses import replace

import numpy as np
import torch
from known_scene import known_gaussians

from stages.splat.viewing.packing import Packed, pack


def unpack(packed: Packed) -> tuple[np.ndarray, np.ndarray]:
    raw, count = gzip.decompress(packed.data), packed.count
    means = np.frombuffer(raw, "<f4", 3 * count).reshape(count, 3)
    levels = np.frombuffer(raw, np.uint8, offset=12 * count).reshape(count, -1)
    low, high = np.array(packed.low), np.array(packed.high)
    return means, low + levels * (high - low) / 255


def test_columns_come_back() -> None:
    trained = known_gaussians(200, degree=1)
    means, columns = unpack(pack(trained, 1000))
    assert np.array_equal(means, trained.means.numpy())
    wanted = torch.cat(
        [
            torch.sigmoid(trained.opacity_logits)[:, None],
            trained.log_scales,
            torch.nn.functional.normalize(trained.quats, dim=-1),
            trained.sh0[:, 0],
            trained.shN.reshape(200, 9),
        ],
        dim=1,
    ).numpy()
    step = (wanted.max(axis=0) - wanted.min(axis=0)) / 255
    assert columns.shape == wanted.shape
    within = np.abs(columns - wanted) <= 0.55 * step
    assert within.mean() > 0.98, "all but outliers, which are clipped to the ends of their column"
    assert np.abs(columns - wanted)[~within].max() < 0.3


def test_degrees_above_1_are_dropped() -> None:
    assert unpack(pack(known_gaussians(20, degree=3), 50))[1].shape == (20, 20)
    assert unpack(pack(known_gaussians(20, degree=0), 50))[1].shape == (20, 11)


def test_the_largest_are_kept_of_too_many() -> None:
    trained = known_gaussians(100)
    trained.log_scales[:40] += 2
    means, _ = unpack(pack(trained, 40))
    assert np.array_equal(means, trained.means[:40].numpy())


def test_a_disc_covers_more_than_a_needle_of_its_length() -> None:
    trained = known_gaussians(2)
    trained.opacity_logits[:] = 0
    trained.log_scales[:] = torch.tensor([[0.0, 1.0, 0.0], [1.0, -9.0, 1.0]])
    means, _ = unpack(pack(trained, 1))
    assert np.array_equal(means, trained.means[1:].numpy())


def test_a_nan_drops_one_gaussian() -> None:
    broken = known_gaussians(20)
    broken.means[3] = float("nan")
    assert pack(broken, 50).count == 19


def test_no_gaussians_are_packed_as_none() -> None:
    empty = known_gaussians(5)
    parts = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")
    none = replace(empty, **{name: getattr(empty, name)[:0] for name in parts})
    assert pack(none, 50).count == 0
