"""SPZ of Gaussians: Niantic's gzipped form, a tenth of a PLY, version 2.

Header of 16 bytes (magic, version, count, degree of harmonics, fractional bits of positions, flags,
a zero), then all positions (24-bit fixed point), all opacities, colours, log-scales, quaternions
and harmonics, a byte each. Its axes are right, up, back, those of a PLY right, down, front.
"""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.run.files import whole_file
from stages.scenes.frames import Sim3
from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians

_MAGIC, _VERSION, _FRACTIONAL_BITS, _ANTIALIASED = 0x5053474E, 2, 12, 1
# What one unit of a degree-0 coefficient is on the scale of 255.
_COLOR_SCALE = 0.15
_BACK_FROM_FRONT = Sim3(1.0, np.diag([1.0, -1.0, -1.0]), np.zeros(3))

Table = NDArray[np.float32]


def write_spz(path: Path, gaussians: Gaussians) -> None:
    """Write finite Gaussians in world coordinates; those with a NaN or infinity are left out."""
    frame = _BACK_FROM_FRONT.compose(gaussians.world_from_norm)
    world = in_world(replace(gaussians, world_from_norm=frame))
    parts = _parts(world)
    finite = np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in parts.values()])
    count = int(finite.sum())
    head = struct.pack(
        "<IIIBBBB", _MAGIC, _VERSION, count, world.sh_degree, _FRACTIONAL_BITS,
        _ANTIALIASED * world.antialiased, 0,
    )  # fmt: skip
    body = b"".join(_CODERS[name](part[finite]) for name, part in parts.items())
    with whole_file(path) as scratch:
        scratch.write_bytes(gzip.compress(head + body, 9, mtime=0))


def _parts(world: Gaussians) -> dict[str, Table]:
    """Columns in the order of the file."""
    quats = torch.nn.functional.normalize(world.quats, dim=-1)
    turned = quats * torch.where(quats[:, :1] < 0, -1.0, 1.0)  # w is left out, so it is positive
    tensors = {
        "means": world.means,
        "opacities": torch.sigmoid(world.opacity_logits)[:, None],
        "colors": world.sh0[:, 0],
        "scales": world.log_scales,
        "quats": turned[:, 1:],
        "harmonics": world.shN.reshape(len(world), -1),
    }
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _positions(values: Table) -> bytes:
    fixed = np.rint(values.astype(np.float64) * 2**_FRACTIONAL_BITS)
    fixed = np.clip(fixed, -(2**23), 2**23 - 1).astype("<i4")
    return fixed.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()


def _levels(values: Table) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


def _harmonics(values: Table) -> bytes:
    """Degree 1 in steps of 8 levels, higher ones of 16, as the format's own writer rounds."""
    coarse = np.where(np.arange(values.shape[1]) < 9, 8, 16)
    levels = np.rint(values * 128) + 128
    return _levels(np.floor((levels + coarse / 2) / coarse) * coarse)


_CODERS = {
    "means": _positions,
    "opacities": lambda values: _levels(values * 255),
    "colors": lambda values: _levels((values * _COLOR_SCALE + 0.5) * 255),
    "scales": lambda values: _levels((values + 10) * 16),
    "quats": lambda values: _levels((values + 1) * 127.5),
    "harmonics": _harmonics,
}
