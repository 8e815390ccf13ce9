"""PLYs of Gaussians as this project, gsplat and the original 3D Gaussian Splatting write them.

Required are x y z, f_dc_0..2, opacity (logit), scale_0..2 (log) and rot_0..3 (wxyz); f_rest_* are
those of degree 0 to 3, all of one colour channel, then the next. Other fields are left out.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.run.errors import UserError
from stages.scenes.frames import Sim3
from stages.splat.export import OFFSET
from stages.splat.gaussians import Gaussians, none_finite

_LOGGER = logging.getLogger(__name__)
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_REST = (0, 9, 24, 45)  # numbers of f_rest_*, by degree
_REQUIRED = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_EXPECTED = "a PLY of Gaussians: x y z, f_dc_0..2, f_rest_*, opacity, scale_0..2, rot_0..3"
_LONGEST_HEADER = 1 << 20  # bytes
_MARKS = ("comment rasterize_mode antialiased", "comment SplatRenderMode: mip")


@dataclass(frozen=True, eq=False)
class Ply:
    """A PLY's Gaussians and the comments that say where it is from."""

    gaussians: Gaussians
    is_ours: bool  # in world coordinates, and `gaussians.antialiased` is stated
    fields: tuple[str, ...]


def open_ply(path: Path) -> Ply:
    """Read a PLY of Gaussians; those that are not finite are left out, with a message.

    The offset of its positions, if it has one, is in `world_from_norm`.

    Raises UserError for another layout and a truncated file.
    """
    lines, body = _split(path)
    table = _table(path, lines, body)
    names = table.dtype.names or ()
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        is_packed = any(name.startswith("packed_") for name in names)
        raise UserError(
            path,
            "a compressed PLY" if is_packed else f"no field {', '.join(missing)}",
            expected=_EXPECTED,
            fix="export it uncompressed" if is_packed else "",
        )
    count = sum(name.startswith("f_rest_") for name in names)
    rest = [f"f_rest_{k}" for k in range(count)]
    if count not in _REST or not set(rest) <= set(names):
        raise UserError(path, f"{count} fields f_rest_*", expected="0, 9, 24 or 45 of them")
    other = [name for name in names if name not in {*_REQUIRED, *rest}]
    if other:
        _LOGGER.info("%s: fields left out: %s", path.name, ", ".join(other))
    columns = np.stack([table[name] for name in (*_REQUIRED, *rest)], axis=1).astype(np.float32)
    finite = np.isfinite(columns).all(axis=1)
    if not finite.any():
        raise UserError(path, none_finite(len(columns)), expected=_EXPECTED)
    if not finite.all():
        text = "%s: %d of %d Gaussians are not finite and left out"
        _LOGGER.warning(text, path.name, len(columns) - finite.sum(), len(columns))
    is_ours = any(line.startswith("comment rasterize_mode ") for line in lines)
    return Ply(_gaussians(path, lines, torch.from_numpy(columns[finite])), is_ours, names)


def _split(path: Path) -> tuple[list[str], bytes]:
    """Lines of the header, and what follows it."""
    data = path.read_bytes()
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    after = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or after < 0:
        raise UserError(path, "not a PLY", expected=_EXPECTED)
    lines = data[:end].decode("ascii", "replace").splitlines()
    return [line.strip() for line in lines], data[after + 1 :]


def _table(path: Path, lines: list[str], body: bytes) -> NDArray[np.void]:
    """The element `vertex`, which is the first one."""
    words = [line.split() for line in lines if line and not line.startswith("comment")]
    order = next((_ORDERS.get(row[1]) for row in words if row[0] == "format" and row[1:]), None)
    if order is None:
        raise UserError(path, "not a binary PLY", expected="format binary_little_endian 1.0")
    elements = [index for index, row in enumerate(words) if row[0] == "element"]
    first = words[elements[0]] if elements else []
    if len(first) == 2 and first[1].isdecimal():
        raise UserError(path, f"element {first[1]} without a name", expected="element vertex COUNT")
    if first[1:2] != ["vertex"]:
        got = f"its first element is {first[1]}" if first[1:] else "no element"
        raise UserError(path, got, expected=_EXPECTED)
    if len(first) != 3 or not (first[2].isascii() and first[2].isdecimal()):
        got = f"an invalid count of Gaussians, {' '.join(first[2:]) or 'none'}"
        raise UserError(path, got, expected="element vertex COUNT, a whole number from 0")
    stop = elements[1] if len(elements) > 1 else len(words)
    fields = [row[1:] for row in words[elements[0] + 1 : stop] if row[0] == "property"]
    if not all(len(field) == 2 and field[0] in _TYPES for field in fields):
        raise UserError(path, "a field of vertex is a list or of no known type", expected=_EXPECTED)
    names = [name for _, name in fields]
    if len(set(names)) < len(names) or not names:
        raise UserError(path, "no fields, or one twice", expected=_EXPECTED)
    layout = np.dtype([(name, order + _TYPES[kind]) for kind, name in fields])
    count = int(first[2])
    if len(body) < count * layout.itemsize:
        got = f"{len(body)} bytes for {count} Gaussians of {layout.itemsize}"
        raise UserError(path, got, expected="a whole file", fix="copy it again")
    return np.frombuffer(body, layout, count)


def _gaussians(path: Path, lines: list[str], columns: Tensor) -> Gaussians:
    rest = (columns.shape[1] - len(_REQUIRED)) // 3
    means, sh0, opacity, scales, quats, sh_rest = columns.split([3, 3, 1, 3, 4, 3 * rest], dim=1)
    offsets = [line.removeprefix(OFFSET).split() for line in lines if line.startswith(OFFSET)]
    try:
        offset = np.array(offsets[0] if offsets else np.zeros(3), np.float64).reshape(3)
    except ValueError as error:
        raise UserError(path, f"{OFFSET}{offsets[0]}", expected="three numbers") from error
    return Gaussians(
        means=means.contiguous(),
        quats=quats.contiguous(),
        log_scales=scales.contiguous(),
        opacity_logits=opacity[:, 0].contiguous(),
        sh0=sh0[:, None].contiguous(),
        shN=sh_rest.reshape(len(means), 3, rest).transpose(1, 2).contiguous(),
        world_from_norm=Sim3(1.0, np.eye(3), offset),
        antialiased=any(mark in lines for mark in _MARKS),
    )
