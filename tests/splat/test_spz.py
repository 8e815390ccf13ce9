"""SPZ read back by the words of its public description."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import known_gaussians

from stages.scenes.cameras import rotation_from_quat
from stages.splat.spz import write_spz

# Axes right, up, back against right, down, front.
FLIPPED = np.array([1.0, -1.0, -1.0])


def read(path: Path) -> dict[str, np.ndarray | int]:
    """The format's arrays, dequantised, in its own frame."""
    raw = gzip.decompress(path.read_bytes())
    magic, version, count, degree, bits, flags, spare = struct.unpack_from("<IIIBBBB", raw)
    assert (magic, version, spare) == (0x5053474E, 2, 0)
    rest = 3 * ((degree + 1) ** 2 - 1)
    found, place = {"degree": degree, "flags": flags}, 16
    for name, width in (("position", 9), ("alpha", 1), ("color", 3), ("scale", 3), ("turn", 3),
                        ("sh", rest)):  # fmt: skip
        part = np.frombuffer(raw, np.uint8, width * count, place).reshape(count, width)
        found[name], place = part.astype(np.int64), place + width * count
    assert place == len(raw)
    low, middle, high = (found["position"][:, k::3] for k in range(3))
    whole = low + (middle << 8) + (high << 16)
    found["position"] = (whole - ((whole >> 23) << 24)) / 2**bits
    found["alpha"] = found["alpha"][:, 0] / 255
    found["color"] = (found["color"] / 255 - 0.5) / 0.15
    found["scale"] = found["scale"] / 16 - 10
    xyz = found["turn"] / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(axis=1, keepdims=True)))
    found["turn"] = np.concatenate([w, xyz], axis=1)
    found["sh"] = (found["sh"] - 128) / 128
    return found


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_every_part_comes_back(tmp_path: Path, degree: int) -> None:
    trained = known_gaussians(80, degree)
    write_spz(tmp_path / "cloud.spz", trained)
    found = read(tmp_path / "cloud.spz")
    assert (found["degree"], found["flags"]) == (degree, 1)
    assert np.allclose(found["position"], trained.means.numpy() * FLIPPED, atol=2**-12)
    assert np.allclose(found["alpha"], torch.sigmoid(trained.opacity_logits).numpy(), atol=1 / 255)
    assert np.allclose(found["scale"], trained.log_scales.numpy(), atol=1 / 16)
    color = np.clip(trained.sh0[:, 0].numpy(), -0.5 / 0.15, 0.5 / 0.15)
    assert np.allclose(found["color"], color, atol=0.02)
    turns = np.stack([rotation_from_quat(one) for one in trained.quats.numpy()])
    read_turns = np.stack([rotation_from_quat(one) for one in found["turn"]])
    # An axis of an ellipsoid may point either way.
    along = np.abs(np.einsum("nij,nij->nj", FLIPPED[:, None] * turns, read_turns))
    assert along.min() > 0.995


def test_harmonics_follow_the_axes(tmp_path: Path) -> None:
    """y z x of degree 1: y and z change their sign with the axes."""
    trained = known_gaussians(50, 1)
    write_spz(tmp_path / "cloud.spz", trained)
    found = read(tmp_path / "cloud.spz")["sh"].reshape(50, 3, 3)
    wanted = np.clip(trained.shN.numpy() * np.array([-1, -1, 1])[None, :, None], -1, 1)
    assert np.allclose(found, wanted, atol=0.5 * 8 / 128 + 0.01)


def test_one_nan_leaves_the_others(tmp_path: Path) -> None:
    broken = known_gaussians(20)
    broken.log_scales[3, 1] = float("inf")
    write_spz(tmp_path / "cloud.spz", broken)
    assert len(read(tmp_path / "cloud.spz")["alpha"]) == 19
