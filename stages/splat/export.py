"""PLY of Gaussians in the world frame of their cameras, in the layout that viewers read.

Fields: x y z, f_dc_*, f_rest_* (all of one colour channel, then the next), opacity (logit),
scale_* (log), rot_* (wxyz). Binary, little-endian.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.files import whole_file
from stages.scenes.cameras import quat_from_rotation
from stages.scenes.frames import Sim3
from stages.splat.gaussians import Gaussians
from stages.splat.harmonics import turned


def in_world(gaussians: Gaussians) -> Gaussians:
    """The same scene in the world frame: positions, sizes, orientations and harmonics moved."""
    world_from_norm = gaussians.world_from_norm
    means = world_from_norm.apply(gaussians.means.double().cpu().numpy())
    turn = torch.tensor(quat_from_rotation(world_from_norm.rotation))
    quats = _multiply(turn, torch.nn.functional.normalize(gaussians.quats.double().cpu(), dim=-1))
    harmonics = turned(gaussians.shN.double().cpu(), world_from_norm.rotation)
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
    """Write finite Gaussians in world coordinates; those with a NaN or infinity are left out."""
    world = in_world(gaussians)
    count = len(world)
    columns = torch.cat(
        [
            world.means, world.sh0.reshape(count, 3),
            world.shN.transpose(1, 2).reshape(count, -1), world.opacity_logits[:, None],
            world.log_scales, world.quats,
        ],
        dim=1,
    ).numpy()  # fmt: skip
    columns = columns[np.isfinite(columns).all(axis=1)]
    mode = "antialiased" if world.antialiased else "classic"
    header = ["ply", "format binary_little_endian 1.0", f"comment rasterize_mode {mode}"]
    # What SuperSplat and its tools read, so that thin Gaussians are not drawn too opaque.
    header += ["comment SplatRenderMode: mip"] if world.antialiased else []
    header += [f"element vertex {len(columns)}"]
    header += [f"property float {name}" for name in _fields(world.shN.shape[1])]
    with whole_file(path) as scratch, scratch.open("wb") as out:
        out.write(("\n".join([*header, "end_header"]) + "\n").encode())
        out.write(columns.astype("<f4").tobytes())


def read_ply(path: Path) -> Gaussians:
    """Read a PLY that `write_ply` wrote. Raises UserError for another layout."""
    data = path.read_bytes()
    head, _, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    fields = [line.split()[-1] for line in lines if line.startswith("property")]
    rest = sum(field.startswith("f_rest_") for field in fields) // 3
    if fields != _fields(rest):
        raise UserError(path, "not a PLY of Gaussians", expected="x y z f_dc_* f_rest_* ...")
    table = torch.from_numpy(np.frombuffer(body, "<f4").reshape(-1, len(fields)).copy())
    means, sh0, sh_rest, opacity, scales, quats = table.split([3, 3, 3 * rest, 1, 3, 4], dim=1)
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=scales,
        opacity_logits=opacity[:, 0],
        sh0=sh0[:, None],
        shN=sh_rest.reshape(len(means), 3, rest).transpose(1, 2).contiguous(),
        world_from_norm=Sim3.identity(),
        antialiased="comment rasterize_mode antialiased" in lines,
    )


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
