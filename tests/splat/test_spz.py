"""SPZ files decoded by the format's public description."""

import gzip
import json
import logging
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import known_gaussians

from stages.run.errors import UserError
from stages.scenes.cameras import rotation_from_quat
from stages.scenes.frames import Sim3
from stages.splat.viewing.spz import write_spz

# From axes right, down, front to right, up, back.
FLIP = np.array([1.0, -1.0, -1.0])


def read(path: Path) -> dict[str, np.ndarray | int]:
    """The format's arrays, dequantised, in its own frame."""
    raw = gzip.decompress(path.read_bytes())
    magic, version, count, degree, bits, flags, spare = struct.unpack_from("<IIIBBBB", raw)
    assert (magic, version, spare) == (0x5053474E, 2, 0)
    rest = 3 * ((degree + 1) ** 2 - 1)
    arrays, offset = {"degree": degree, "flags": flags}, 16
    for name, width in (
        ("position", 9),
        ("alpha", 1),
        ("color", 3),
        ("scale", 3),
        ("quat", 3),
        ("sh", rest),
    ):
        part = np.frombuffer(raw, np.uint8, width * count, offset).reshape(count, width)
        arrays[name], offset = part.astype(np.int64), offset + width * count
    assert offset == len(raw)
    low, middle, high = (arrays["position"][:, k::3] for k in range(3))
    whole = low + (middle << 8) + (high << 16)
    arrays["position"] = (whole - ((whole >> 23) << 24)) / 2**bits
    arrays["alpha"] = arrays["alpha"][:, 0] / 255
    arrays["color"] = (arrays["color"] / 255 - 0.5) / 0.15
    arrays["scale"] = arrays["scale"] / 16 - 10
    xyz = arrays["quat"] / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(axis=1, keepdims=True)))
    arrays["quat"] = np.concatenate([w, xyz], axis=1)
    arrays["sh"] = (arrays["sh"] - 128) / 128
    return arrays


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_every_attribute_survives(tmp_path: Path, degree: int) -> None:
    trained = known_gaussians(80, degree)
    write_spz(tmp_path / "cloud.spz", trained)
    decoded = read(tmp_path / "cloud.spz")
    assert (decoded["degree"], decoded["flags"]) == (degree, 1)
    assert np.allclose(decoded["position"], trained.means.numpy() * FLIP, atol=2**-12)
    assert np.allclose(
        decoded["alpha"], torch.sigmoid(trained.opacity_logits).numpy(), atol=1 / 255
    )
    assert np.allclose(decoded["scale"], trained.log_scales.numpy(), atol=1 / 16)
    color = np.clip(trained.sh0[:, 0].numpy(), -0.5 / 0.15, 0.5 / 0.15)
    assert np.allclose(decoded["color"], color, atol=0.02)
    rotations = np.stack([rotation_from_quat(quat) for quat in trained.quats.numpy()])
    read_rotations = np.stack([rotation_from_quat(quat) for quat in decoded["quat"]])
    # An axis of an ellipsoid may point either way.
    cosines = np.abs(np.einsum("nij,nij->nj", FLIP[:, None] * rotations, read_rotations))
    assert cosines.min() > 0.9997


def test_harmonics_follow_the_axes(tmp_path: Path) -> None:
    """Degree 1 is in the order y, z, x: y and z change sign with the axes."""
    trained = known_gaussians(50, 1)
    write_spz(tmp_path / "cloud.spz", trained)
    decoded = read(tmp_path / "cloud.spz")["sh"].reshape(50, 3, 3)
    wanted = np.clip(trained.shN.numpy() * np.array([-1, -1, 1])[None, :, None], -1, 1)
    assert np.allclose(decoded, wanted, atol=0.5 * 8 / 128 + 0.01)


@pytest.mark.parametrize("unit", [1e-7, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("away", [0.0, 3e3, 5.2e6])
def test_every_world_frame_survives(tmp_path: Path, unit: float, away: float) -> None:
    """Through the frame beside the file, absent for metres near the origin."""
    frame = Sim3(unit, np.eye(3), unit * away * np.array([0.8, 0.1, -0.6]))
    trained = replace(known_gaussians(80, 1), world_from_norm=frame)
    write_spz(tmp_path / "cloud.spz", trained)
    decoded, frame_path = read(tmp_path / "cloud.spz"), tmp_path / "cloud.spz.json"
    assert frame_path.is_file() is not (unit == 1.0 and away == 0.0)
    world_from_file = Sim3(1.0, np.diag(FLIP), np.zeros(3))
    if frame_path.is_file():
        world_from_file = Sim3.from_dict(json.loads(frame_path.read_text())["world_from_file"])
    in_world = world_from_file.apply(decoded["position"])
    truth = frame.apply(trained.means.double().numpy())
    assert np.allclose(in_world, truth, rtol=0, atol=1e-3 * unit)
    log_scales = decoded["scale"] + np.log(world_from_file.scale)
    assert np.allclose(log_scales, trained.log_scales.numpy() + np.log(unit), atol=1 / 16)


def test_a_distant_gaussian_coarsens_all_positions(tmp_path: Path) -> None:
    """Fewer fractional bits are left, but nothing is clipped to the range."""
    spread = known_gaussians(80)
    spread.means[5, 0] = 30_000.0
    write_spz(tmp_path / "cloud.spz", spread)
    decoded = read(tmp_path / "cloud.spz")["position"]
    assert np.allclose(decoded, spread.means.numpy() * FLIP, atol=1 / 256)


def test_gaussians_out_of_range_are_dropped_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lost = known_gaussians(200)
    lost.means[5, 0] = 1e9
    lost.log_scales[7] = 9.0
    write_spz(tmp_path / "cloud.spz", lost)
    assert len(read(tmp_path / "cloud.spz")["alpha"]) == 198
    assert caplog.messages[0].startswith("cloud.spz: dropped 2 of 200 Gaussians")
    lost.means[:20, 1] = 1e9
    with pytest.raises(UserError, match="20 of 200 Gaussians") as raised:
        write_spz(tmp_path / "cloud.spz", lost)
    assert "PLY" in str(raised.value)


def test_an_infinity_drops_one_gaussian(tmp_path: Path) -> None:
    broken = known_gaussians(20)
    broken.log_scales[3, 1] = float("inf")
    write_spz(tmp_path / "cloud.spz", broken)
    assert len(read(tmp_path / "cloud.spz")["alpha"]) == 19
