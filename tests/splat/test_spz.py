"""SPZ read back by the words of its public description."""

import gzip
import json
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


@pytest.mark.parametrize("unit", [1e-7, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("away", [0.0, 3e3, 5.2e6])
def test_every_world_comes_back(tmp_path: Path, unit: float, away: float) -> None:
    """By the frame beside the file, which a world of metres near its origin does not need."""
    frame = Sim3(unit, np.eye(3), unit * away * np.array([0.8, 0.1, -0.6]))
    trained = replace(known_gaussians(80, 1), world_from_norm=frame)
    write_spz(tmp_path / "cloud.spz", trained)
    found, beside = read(tmp_path / "cloud.spz"), tmp_path / "cloud.spz.json"
    assert beside.is_file() is not (unit == 1.0 and away == 0.0)
    world_from_file = Sim3(1.0, np.diag(FLIPPED), np.zeros(3))
    if beside.is_file():
        world_from_file = Sim3.from_dict(json.loads(beside.read_text())["world_from_file"])
    placed = world_from_file.apply(found["position"])
    truth = frame.apply(trained.means.double().numpy())
    assert np.allclose(placed, truth, rtol=0, atol=1e-3 * unit)
    sizes = found["scale"] + np.log(world_from_file.scale)
    assert np.allclose(sizes, trained.log_scales.numpy() + np.log(unit), atol=1 / 16)


def test_positions_far_from_the_others_coarsen_the_steps_of_all(tmp_path: Path) -> None:
    """No bits to spare for fractions then, but nothing is moved to the edge of the range."""
    spread = known_gaussians(80)
    spread.means[5, 0] = 30_000.0
    write_spz(tmp_path / "cloud.spz", spread)
    found = read(tmp_path / "cloud.spz")["position"]
    assert np.allclose(found, spread.means.numpy() * FLIPPED, atol=1 / 256)


def test_what_no_setting_holds_is_left_out_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = known_gaussians(200)
    lost.means[5, 0] = 1e9
    lost.log_scales[7] = 9.0
    write_spz(tmp_path / "cloud.spz", lost)
    assert len(read(tmp_path / "cloud.spz")["alpha"]) == 198
    assert capsys.readouterr().out.startswith("cloud.spz: 2 of 200 Gaussians")
    lost.means[:20, 1] = 1e9
    with pytest.raises(UserError, match="20 of 200 Gaussians") as raised:
        write_spz(tmp_path / "cloud.spz", lost)
    assert "PLY" in str(raised.value)


def test_one_nan_leaves_the_others(tmp_path: Path) -> None:
    broken = known_gaussians(20)
    broken.log_scales[3, 1] = float("inf")
    write_spz(tmp_path / "cloud.spz", broken)
    assert len(read(tmp_path / "cloud.spz")["alpha"]) == 19
