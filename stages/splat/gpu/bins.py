"""Which Gaussians meet which tile, front to back, without waiting for their number.

gsplat counts the meetings, tells the host, and then makes room for them. Here the room is made
beforehand: places that no meeting fills go to an extra row of tiles below the picture, which the
rasteriser is told to skip. So do Gaussians that meet a tile with a corner of their box alone, and
are too faint to be drawn in any of its pixels. All others are in gsplat's order.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 16  # px
_BLOCK = 512


# Alpha below which the rasteriser draws nothing, less what rounding may take.
_FAINTEST = 0.999 / 255


class Splats(NamedTuple):
    """Gaussians on the picture."""

    means2d: Tensor  # [N, 2] px
    radii: Tensor  # [N, 2] int32 px, 0 = not seen
    depths: Tensor  # [N]
    conics: Tensor  # [N, 3], upper triangle of the inverse covariance
    opacities: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class Bins:
    """Gaussians by tile, in the form of gsplat's rasteriser."""

    offsets: Tensor  # [1, rows + 1, columns] int32, first place of each tile
    ids: Tensor  # [room] int32
    drawn: Tensor  # [1, rows + 1, columns] bool, false for the extra row
    total: Tensor  # [] int32, meetings there are, whatever the room


@torch.no_grad()
def fill(splats: Splats, width: int, height: int, room: int | None = None) -> Bins:
    """Bins with so many places; without `room` the host waits to learn what is needed.

    Where `total` exceeds the room, the farthest Gaussians are missing.
    """
    columns, rows = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    count, device = len(splats.depths), splats.depths.device
    order = torch.sort(splats.depths, stable=True)[1]
    boxes = torch.empty(3, count, dtype=torch.int32, device=device)
    meetings = torch.empty(count, dtype=torch.int32, device=device)
    _boxes[(triton.cdiv(count, _BLOCK),)](
        splats.means2d, splats.radii, order, boxes, meetings, count, columns, rows, TILE, _BLOCK
    )
    ends = torch.cumsum(meetings, 0, dtype=torch.int32)
    total = ends[-1]
    if room is None:
        room = max(1, int(total))
    kind = torch.int16 if columns * (rows + 1) < 2**15 else torch.int32
    tiles = torch.empty(room, dtype=kind, device=device)
    ids = torch.empty(room, dtype=torch.int32, device=device)
    _meetings[(triton.cdiv(room, _BLOCK),)](
        ends, boxes, order, splats.means2d, splats.conics, splats.opacities, tiles, ids,
        count, room, columns, rows * columns, count.bit_length(), _FAINTEST, TILE, _BLOCK,
    )  # fmt: skip
    tiles, places = torch.sort(tiles, stable=True)
    every, drawn = _tiles(columns, rows, kind, device)
    offsets = torch.searchsorted(tiles, every, out_int32=True)
    return Bins(offsets.view(1, rows + 1, columns), ids[places], drawn, total)


def meetings(means2d: Tensor, radii: Tensor, width: int, height: int) -> Tensor:
    """Tiles under the boxes of all Gaussians of a picture: [N, 2] twice, px -> []."""
    tiles = means2d.new_tensor([triton.cdiv(width, TILE), triton.cdiv(height, TILE)])
    seen = (radii > 0).all(dim=-1, keepdim=True)
    # What is not seen has no mean: it may hold anything.
    places, reach = torch.where(seen, means2d, 0) / TILE, torch.where(seen, radii, 0) / TILE
    first = torch.floor(places - reach).clamp(min=0).minimum(tiles)
    last = torch.ceil(places + reach).clamp(min=0).minimum(tiles)
    return ((last - first).prod(dim=-1) * seen[:, 0]).sum()


_KNOWN: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}


def _tiles(
    columns: int, rows: int, kind: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Numbers of all tiles, and which are drawn; kept on the device."""
    key = columns, rows, device
    if key not in _KNOWN:
        every = torch.arange((rows + 1) * columns, device=device)
        drawn = (every < rows * columns).view(1, rows + 1, columns)
        _KNOWN[key] = every.to(kind), drawn
        if device.type == "cuda":
            torch.cuda.synchronize()  # other streams read them too
    return _KNOWN[key]


@triton.jit(do_not_specialize=["count", "columns", "rows"])
def _boxes(
    means2d, radii, order, boxes, meetings, count, columns, rows,
    tile: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """First column, first row, and columns of the tiles under each Gaussian, nearest first."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    there = place < count
    one = tl.load(order + place, mask=there, other=0)
    x = tl.load(means2d + 2 * one, mask=there, other=0.0) / tile
    y = tl.load(means2d + 2 * one + 1, mask=there, other=0.0) / tile
    wide = tl.load(radii + 2 * one, mask=there, other=0).to(tl.float32)
    high = tl.load(radii + 2 * one + 1, mask=there, other=0).to(tl.float32)
    seen = there & (wide > 0) & (high > 0)
    # What is not seen has no mean: it may hold anything.
    x, y = tl.where(seen, x, 0.0), tl.where(seen, y, 0.0)
    left = _clipped(tl.floor(x - wide / tile), columns)
    right = _clipped(tl.ceil(x + wide / tile), columns)
    top = _clipped(tl.floor(y - high / tile), rows)
    bottom = _clipped(tl.ceil(y + high / tile), rows)
    tl.store(boxes + place, left, mask=there)
    tl.store(boxes + count + place, top, mask=there)
    tl.store(boxes + 2 * count + place, right - left, mask=there)
    found = tl.where(seen, (right - left) * (bottom - top), 0)
    tl.store(meetings + place, found, mask=there)


@triton.jit
def _clipped(value, limit):
    return tl.minimum(tl.maximum(value, 0.0), limit.to(tl.float32)).to(tl.int32)


@triton.jit(do_not_specialize=["count", "room", "columns", "beyond", "halvings"])
def _meetings(
    ends, boxes, order, means2d, conics, opacities, tiles, ids,
    count, room, columns, beyond, halvings, faintest, tile: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Tile and Gaussian of every place, found by bisection; the tile `beyond` where none is."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    there = place < room
    low = tl.zeros((block,), tl.int32)
    high = tl.zeros((block,), tl.int32) + count
    for _ in range(halvings):
        middle = (low + high) // 2
        past = (middle < high) & (tl.load(ends + middle, mask=middle < count, other=0) <= place)
        low = tl.where(past, middle + 1, low)
        high = tl.where(past, high, middle)
    found = there & (low < count)
    start = tl.load(ends + low - 1, mask=found & (low > 0), other=0)
    across = tl.load(boxes + 2 * count + low, mask=found, other=1)
    nth = place - start
    column = tl.load(boxes + low, mask=found, other=0) + nth % across
    row = tl.load(boxes + count + low, mask=found, other=0) + nth // across
    one = tl.load(order + low, mask=found, other=0)
    # Of the tile's pixel centres the one where the Gaussian is densest lies on a side that faces
    # its centre; a is the side across x, b that across y.
    x = tl.load(means2d + 2 * one, mask=found, other=0.0) - (column * tile).to(tl.float32)
    y = tl.load(means2d + 2 * one + 1, mask=found, other=0.0) - (row * tile).to(tl.float32)
    xx = tl.load(conics + 3 * one, mask=found, other=1.0)
    xy = tl.load(conics + 3 * one + 1, mask=found, other=0.0)
    yy = tl.load(conics + 3 * one + 2, mask=found, other=1.0)
    near_x, near_y = _within(x, tile) - x, _within(y, tile) - y
    a_y = _within(y - xy * near_x / yy, tile) - y
    b_x = _within(x - xy * near_y / xx, tile) - x
    a = 0.5 * (xx * near_x * near_x + yy * a_y * a_y) + xy * near_x * a_y
    b = 0.5 * (xx * b_x * b_x + yy * near_y * near_y) + xy * b_x * near_y
    inside = (near_x == 0) & (near_y == 0)
    least = tl.where(inside, 0.0, tl.minimum(_or_far(a, near_x), _or_far(b, near_y)))
    opacity = tl.load(opacities + one, mask=found, other=0.0)
    drawn = found & (opacity * tl.exp(-least) >= faintest)
    number = tl.where(drawn, row * columns + column, beyond)
    tl.store(tiles + place, number.to(tiles.dtype.element_ty), mask=there)
    tl.store(ids + place, one.to(tl.int32), mask=there)


@triton.jit
def _within(value, tile: tl.constexpr):
    """The nearest place between the first and the last pixel centre of a tile."""
    return tl.minimum(tl.maximum(value, 0.5), tile - 0.5)


@triton.jit
def _or_far(value, near):
    """A side that does not face the centre has no say."""
    return tl.where(near != 0, value, float("inf"))
