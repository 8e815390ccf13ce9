"""Gaussians as SPZ, version 2: Niantic's gzipped format, a tenth of the size of a PLY.

Header of 16 bytes (magic, version, count, degree of harmonics, fractional bits of positions, flags,
a zero), then all positions (24-bit fixed point), all opacities, colours, log-scales, quaternions
and harmonics, a byte each. Its axes are right, up, back, those of a PLY right, down, front.

Fixed point and byte log-scales suit scenes of some metres near the origin. Any other model is
written in a frame of its own, with `world_from_file` in `<file>.json` beside it.
"""

import gzip
import logging
import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.files import whole_file, write_json
from stages.scenes.frames import Sim3
from stages.splat.export import extent, in_world, rounded
from stages.splat.gaussians import Gaussians

_LOGGER = logging.getLogger(__name__)

_MAGIC, _VERSION, _ANTIALIASED = 0x5053474E, 2, 1
_MOST_BITS = 12  # fractional ones, as in the format's reference writer
_COARSEST = 1 / 64  # step of positions, as a share of the model's spread
_LOG_SCALES = (-10.0, -10.0 + 255.5 / 16)  # range of a byte
_USUAL_LOG_SCALES = (-8.0, 3.0)  # range of the median for which the world frame is kept
_MOST_DROPPED = 0.01
# One unit of a degree-0 coefficient, as a share of 255 levels.
_COLOR_SCALE = 0.15
_BACK_FROM_FRONT = Sim3(1.0, np.diag([1.0, -1.0, -1.0]), np.zeros(3))

Table = NDArray[np.float32]


def write_spz(path: Path, gaussians: Gaussians) -> None:
    """Write the finite Gaussians in world coordinates, or in a frame that the format can hold.

    `<path>.json` gives that frame. Up to 1 % of the Gaussians that are too far away or too large
    are dropped with a message; raises UserError for more.
    """
    file_from_world = _file_from_world(gaussians)
    moved = gaussians if file_from_world is None else gaussians.moved(file_from_world)
    world = in_world(moved.moved(_BACK_FROM_FRONT))
    columns = _columns(world)
    finite = np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in columns.values()])
    bits = _fractional_bits(columns["means"][finite], extent(moved)[1])
    kept = finite & _representable(columns, bits)
    lost, count = int(finite.sum() - kept.sum()), int(kept.sum())
    if lost > _MOST_DROPPED * finite.sum():
        raise UserError(
            path.name,
            f"{lost} of {finite.sum()} Gaussians lie or reach farther than SPZ can hold",
            expected="most of them within some 100,000 times their spread",
            fix="export a PLY",
        )
    if lost:
        _LOGGER.info(
            "%s: dropped %d of %d Gaussians, too far away for SPZ", path.name, lost, finite.sum()
        )
    _write_frame(path, file_from_world)
    header = struct.pack(
        "<IIIBBBB",
        _MAGIC,
        _VERSION,
        count,
        world.sh_degree,
        bits,
        _ANTIALIASED * world.antialiased,
        0,
    )
    encoders = _ENCODERS | {"means": lambda values: _positions(values, bits)}
    body = b"".join(encoders[name](values[kept]) for name, values in columns.items())
    with whole_file(path) as scratch:
        scratch.write_bytes(gzip.compress(header + body, 9, mtime=0))


def _file_from_world(gaussians: Gaussians) -> Sim3 | None:
    """The frame of a file that cannot hold world coordinates; None for one that can."""
    middle, spread = extent(gaussians)
    log_scales = gaussians.log_scales.detach().double().cpu().max(dim=1).values
    log_scales = log_scales[torch.isfinite(log_scales)]
    if not len(log_scales) or spread == 0:
        return None
    log_scale = float(log_scales.median() + np.log(gaussians.world_from_norm.scale))
    near = np.abs(middle).max() + 4 * spread < _range(_MOST_BITS)
    fine = _COARSEST * spread >= 2.0**-_MOST_BITS
    if near and fine and _USUAL_LOG_SCALES[0] <= log_scale <= _USUAL_LOG_SCALES[1]:
        return None
    scale = float(f"1e{-round(np.log10(spread))}")
    return Sim3(scale, np.eye(3), -scale * rounded(middle, spread))


def _write_frame(path: Path, file_from_world: Sim3 | None) -> None:
    """Write `world_from_file` beside a file whose frame is not the world's."""
    beside = path.with_name(f"{path.name}.json")
    beside.unlink(missing_ok=True)
    if file_from_world is not None:
        world_from_file = _BACK_FROM_FRONT.compose(file_from_world).inverse()
        write_json(beside, {"world_from_file": world_from_file.to_dict()})
        _LOGGER.info(
            "%s: SPZ cannot hold the world's coordinates; %s has the frame", path.name, beside.name
        )


def _range(bits: int) -> float:
    """The bound of coordinates in fixed point with that many fractional bits."""
    return 2.0 ** (23 - bits)


def _fractional_bits(means: Table, spread: float) -> int:
    """As many as hold all Gaussians, unless the steps became too coarse for most of them."""
    farthest = float(np.abs(means).max(initial=1.0))
    least = int(np.ceil(np.log2(1 / (_COARSEST * spread)))) if spread > 0 else 0
    fitting = int(np.floor(23 - np.log2(farthest) - 1e-6))
    return max(0, min(_MOST_BITS, max(least, fitting)))


def _representable(columns: dict[str, Table], bits: int) -> NDArray[np.bool_]:
    """Which Gaussians lie within the range of positions and are not too large for a byte."""
    inside = np.abs(columns["means"]).max(axis=1) < _range(bits)
    return inside & (columns["scales"].max(axis=1) <= _LOG_SCALES[1])


def _columns(world: Gaussians) -> dict[str, Table]:
    """Values by attribute, in the order of the file."""
    tensors = {
        "means": world.means,
        "opacities": torch.sigmoid(world.opacity_logits)[:, None],
        "colors": world.sh0[:, 0],
        "scales": world.log_scales,
        "quats": _with_largest_w(world.quats)[:, 1:],  # the file leaves w out
        "harmonics": world.shN.reshape(len(world), -1),
    }
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _with_largest_w(quats: torch.Tensor) -> torch.Tensor:
    """Quaternions wxyz [N, 4] of the same ellipsoids, with the largest component as w.

    Half a rotation about one of an ellipsoid's axes does not change it, and moves another component
    to the place of w: q i = (-x, w, z, -y). A reader computes w of the others' bytes, and a small w
    would multiply their rounding.
    """
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    alike = torch.stack(
        [
            torch.stack([w, x, y, z], -1),
            torch.stack([-x, w, z, -y], -1),
            torch.stack([-y, -z, w, x], -1),
            torch.stack([-z, y, -x, w], -1),
        ],
        dim=1,
    )
    largest = alike[..., 0].abs().argmax(dim=1)
    chosen = alike[torch.arange(len(quats)), largest]
    return chosen * torch.where(chosen[:, :1] < 0, -1.0, 1.0)


def _positions(values: Table, bits: int) -> bytes:
    fixed = np.rint(values.astype(np.float64) * 2**bits)
    fixed = np.clip(fixed, -(2**23), 2**23 - 1).astype("<i4")
    return fixed.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()


def _levels(values: Table) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


def _harmonics(values: Table) -> bytes:
    """Degree 1 in steps of 8 levels, higher ones of 16, as the format's reference writer rounds."""
    coarse = np.where(np.arange(values.shape[1]) < 9, 8, 16)
    levels = np.rint(values * 128) + 128
    return _levels(np.floor((levels + coarse / 2) / coarse) * coarse)


_ENCODERS = {
    "opacities": lambda values: _levels(values * 255),
    "colors": lambda values: _levels((values * _COLOR_SCALE + 0.5) * 255),
    "scales": lambda values: _levels((values - _LOG_SCALES[0]) * 16),
    "quats": lambda values: _levels((values + 1) * 127.5),
    "harmonics": _harmonics,
}
