"""PLY of Gaussians in the world frame of their cameras, in the layout that viewers read.

Fields: x y z, f_dc_*, f_rest_* (all of one colour channel, then the next), opacity (logit),
scale_* (log), rot_* (wxyz). Binary, little-endian. Where float32 cannot hold world coordinates, as
those of a map, x y z are relative to a point near the Gaussians, which the header states in a line
`comment offset X Y Z`: world = offset + x y z.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.run.files import whole_file
from stages.scenes.cameras import Array, quat_from_rotation
from stages.scenes.frames import Sim3
from stages.splat.gaussians import Gaussians
from stages.splat.harmonics import rotated

_LOGGER = logging.getLogger(__name__)

# Up to this distance, in spreads, float32 resolves a 16,000th of the spread or less.
_MAX_DISTANCE = 512.0
OFFSET = "comment offset "


def extent(gaussians: Gaussians) -> tuple[Array, float]:
    """Median [3] of the means in world coordinates, and their median distance from it.

    Means that are not finite do not count; zeros where none is.
    """
    means = gaussians.world_from_norm.apply(gaussians.means.detach().double().cpu().numpy())
    means = means[np.isfinite(means).all(axis=1)]
    if not len(means):
        return np.zeros(3), 0.0
    middle = np.median(means, axis=0)
    return middle, float(np.median(np.linalg.norm(means - middle, axis=1)))


def rounded(middle: Array, spread: float) -> Array:
    """The middle [3] to as few digits as a model of this spread needs."""
    step = 10.0 ** np.floor(np.log10(spread)) if spread > 0 else 1.0
    return np.array([float(f"{value:.15g}") for value in np.rint(middle / step) * step])


def in_world(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians in the world frame: means, scales, rotations and harmonics."""
    world_from_norm = gaussians.world_from_norm
    means = world_from_norm.apply(gaussians.means.double().cpu().numpy())
    rotation = torch.tensor(quat_from_rotation(world_from_norm.rotation))
    quats = _multiply(
        rotation, torch.nn.functional.normalize(gaussians.quats.double().cpu(), dim=-1)
    )
    harmonics = rotated(gaussians.shN.double().cpu(), world_from_norm.rotation)
    return Gaussians(
        means=torch.tensor(means, dtype=torch.float32),
        quats=quats.float(),
        log_scales=gaussians.log_scales.cpu() + float(np.log(world_from_norm.scale)),
        opacity_logits=gaussians.opacity_logits.cpu(),
        sh0=gaussians.sh0.cpu(),
        shN=harmonics.float(),
        world_from_norm=Sim3.identity(),
        antialiased=gaussians.antialiased,
        metadata=gaussians.metadata,
    )


def write_ply(path: Path, gaussians: Gaussians) -> None:
    """Write the finite Gaussians in world coordinates.

    Coordinates that float32 cannot hold are written relative to a point near them, with a message.
    """
    middle, spread = extent(gaussians)
    offset = None
    if np.linalg.norm(middle) > _MAX_DISTANCE * spread and len(gaussians) > 1:
        offset = rounded(middle, spread)
        gaussians = gaussians.moved(Sim3(1.0, np.eye(3), -offset))
    world = in_world(gaussians)
    count = len(world)
    columns = torch.cat(
        [
            world.means,
            world.sh0.reshape(count, 3),
            world.shN.transpose(1, 2).reshape(count, -1),
            world.opacity_logits[:, None],
            world.log_scales,
            world.quats,
        ],
        dim=1,
    ).numpy()
    columns = columns[np.isfinite(columns).all(axis=1)]
    mode = "antialiased" if world.antialiased else "classic"
    header = ["ply", "format binary_little_endian 1.0", f"comment rasterize_mode {mode}"]
    # SuperSplat and its tools read it, so as not to render thin Gaussians too opaque.
    header += ["comment SplatRenderMode: mip"] if world.antialiased else []
    if offset is not None:
        numbers = " ".join(repr(float(value)) for value in offset)
        header += [OFFSET + numbers, "comment world = offset + x y z"]
        _LOGGER.info(
            "%s: too far from the origin for float32; x y z are relative to %s", path.name, numbers
        )
    header += [f"element vertex {len(columns)}"]
    header += [f"property float {name}" for name in _fields(world.shN.shape[1])]
    with whole_file(path) as scratch, scratch.open("wb") as out:
        out.write(("\n".join([*header, "end_header"]) + "\n").encode())
        out.write(columns.astype("<f4").tobytes())


def _fields(rest: int) -> list[str]:
    names = ["x", "y", "z", *(f"f_dc_{k}" for k in range(3))]
    names += [f"f_rest_{k}" for k in range(3 * rest)]
    return [*names, "opacity", *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))]


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Quaternion product wxyz of a [4] and b [N, 4]."""
    aw, av = a[0], a[1:]
    bw, bv = b[:, :1], b[:, 1:]
    scalar = aw * bw - (bv * av).sum(-1, keepdim=True)
    return torch.cat([scalar, aw * bv + bw * av + torch.linalg.cross(av.expand_as(bv), bv)], -1)
