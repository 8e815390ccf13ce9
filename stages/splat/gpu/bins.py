"""Intersections (isects) of Gaussians and tiles, front to back, without waiting for their number.

gsplat counts the intersections, passes the number to the host, and then allocates. Here room is
allocated beforehand: slots that no intersection fills go to an extra row of tiles below the image,
which the rasteriser skips. So do Gaussians that reach a tile with a corner of their box
alone and are too faint to be rendered in any of its pixels. All others are in gsplat's order.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 16  # px
_BLOCK = 512
# Alpha below which the rasteriser skips a Gaussian, less what rounding may take.
_FAINTEST = 0.999 / 255


class Splats(NamedTuple):
    """Gaussians projected onto the image."""

    means2d: Tensor  # [N, 2] px
    radii: Tensor  # [N, 2] int32 px, 0 = not visible
    depths: Tensor  # [N]
    conics: Tensor  # [N, 3], upper triangle of the inverse covariance
    opacities: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class Bins:
    """Gaussians by tile, in the layout of gsplat's rasteriser."""

    offsets: Tensor  # [1, rows + 1, columns] int32, first slot of each tile
    ids: Tensor  # [room] int32
    rendered: Tensor  # [1, rows + 1, columns] bool, false for the extra row
    isects: Tensor  # [] int32, number of intersections, whatever the room


@torch.no_grad()
def fill(splats: Splats, width: int, height: int, room: int | None = None) -> Bins:
    """Bins with `room` slots; without it the host waits to learn how many are needed.

    Where `isects` exceeds the room, the farthest Gaussians are missing.
    """
    columns, rows = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    count, device = len(splats.depths), splats.depths.device
    order = torch.sort(splats.depths, stable=True)[1]
    boxes = torch.empty(3, count, dtype=torch.int32, device=device)
    counts = torch.empty(count, dtype=torch.int32, device=device)
    _boxes[(triton.cdiv(count, _BLOCK),)](
        splats.means2d, splats.radii, order, boxes, counts, count, columns, rows, TILE, _BLOCK
    )
    ends = torch.cumsum(counts, 0, dtype=torch.int32)
    isects = ends[-1]
    if room is None:
        room = max(1, int(isects))
    kind = torch.int16 if columns * (rows + 1) < 2**15 else torch.int32
    tiles = torch.empty(room, dtype=kind, device=device)
    ids = torch.empty(room, dtype=torch.int32, device=device)
    _fill_slots[(triton.cdiv(room, _BLOCK),)](
        ends,
        boxes,
        order,
        splats.means2d,
        splats.conics,
        splats.opacities,
        tiles,
        ids,
        count,
        room,
        columns,
        rows * columns,
        count.bit_length(),
        _FAINTEST,
        TILE,
        _BLOCK,
    )
    tiles, slots = torch.sort(tiles, stable=True)
    numbers, rendered = _tiles(columns, rows, kind, device)
    offsets = torch.searchsorted(tiles, numbers, out_int32=True)
    return Bins(offsets.view(1, rows + 1, columns), ids[slots], rendered, isects)


def count_isects(
    means2d: Tensor,  # [N, 2] px
    radii: Tensor,  # [N, 2] px
    width: int,
    height: int,
) -> Tensor:
    """Number [] of tiles under the boxes of all Gaussians of an image."""
    tiles = means2d.new_tensor([triton.cdiv(width, TILE), triton.cdiv(height, TILE)])
    visible = (radii > 0).all(dim=-1, keepdim=True)
    # The mean of a Gaussian that is not visible is undefined.
    centres, reach = torch.where(visible, means2d, 0) / TILE, torch.where(visible, radii, 0) / TILE
    first = torch.floor(centres - reach).clamp(min=0).minimum(tiles)
    last = torch.ceil(centres + reach).clamp(min=0).minimum(tiles)
    return ((last - first).prod(dim=-1) * visible[:, 0]).sum()


_TILES: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}


def _tiles(
    columns: int, rows: int, kind: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Numbers of all tiles, and which are rendered; kept on the device."""
    key = columns, rows, device
    if key not in _TILES:
        numbers = torch.arange((rows + 1) * columns, device=device)
        rendered = (numbers < rows * columns).view(1, rows + 1, columns)
        _TILES[key] = numbers.to(kind), rendered
        if device.type == "cuda":
            torch.cuda.synchronize()  # other streams read them too
    return _TILES[key]


@triton.jit(do_not_specialize=["count", "columns", "rows"])
def _boxes(
    means2d,
    radii,
    order,
    boxes,
    counts,
    count,
    columns,
    rows,
    tile: tl.constexpr,
    block: tl.constexpr,
):
    """First column, first row, columns and number of tiles under each Gaussian, nearest first."""
    nth = tl.program_id(0) * block + tl.arange(0, block)
    inside = nth < count
    gaussian = tl.load(order + nth, mask=inside, other=0)
    x = tl.load(means2d + 2 * gaussian, mask=inside, other=0.0) / tile
    y = tl.load(means2d + 2 * gaussian + 1, mask=inside, other=0.0) / tile
    wide = tl.load(radii + 2 * gaussian, mask=inside, other=0).to(tl.float32)
    high = tl.load(radii + 2 * gaussian + 1, mask=inside, other=0).to(tl.float32)
    visible = inside & (wide > 0) & (high > 0)
    # The mean of a Gaussian that is not visible is undefined.
    x, y = tl.where(visible, x, 0.0), tl.where(visible, y, 0.0)
    left = _clipped(tl.floor(x - wide / tile), columns)
    right = _clipped(tl.ceil(x + wide / tile), columns)
    top = _clipped(tl.floor(y - high / tile), rows)
    bottom = _clipped(tl.ceil(y + high / tile), rows)
    tl.store(boxes + nth, left, mask=inside)
    tl.store(boxes + count + nth, top, mask=inside)
    tl.store(boxes + 2 * count + nth, right - left, mask=inside)
    isects = tl.where(visible, (right - left) * (bottom - top), 0)
    tl.store(counts + nth, isects, mask=inside)


@triton.jit
def _clipped(value, limit):
    return tl.minimum(tl.maximum(value, 0.0), limit.to(tl.float32)).to(tl.int32)


@triton.jit(do_not_specialize=["count", "room", "columns", "beyond", "halvings"])
def _fill_slots(
    ends,
    boxes,
    order,
    means2d,
    conics,
    opacities,
    tiles,
    ids,
    count,
    room,
    columns,
    beyond,
    halvings,
    faintest,
    tile: tl.constexpr,
    block: tl.constexpr,
):
    """Tile and Gaussian of every slot, by bisection; the tile `beyond` for empty slots."""
    slot = tl.program_id(0) * block + tl.arange(0, block)
    in_room = slot < room
    low = tl.zeros((block,), tl.int32)
    high = tl.zeros((block,), tl.int32) + count
    for _ in range(halvings):
        middle = (low + high) // 2
        past = (middle < high) & (tl.load(ends + middle, mask=middle < count, other=0) <= slot)
        low = tl.where(past, middle + 1, low)
        high = tl.where(past, high, middle)
    filled = in_room & (low < count)
    start = tl.load(ends + low - 1, mask=filled & (low > 0), other=0)
    across = tl.load(boxes + 2 * count + low, mask=filled, other=1)
    nth = slot - start
    column = tl.load(boxes + low, mask=filled, other=0) + nth % across
    row = tl.load(boxes + count + low, mask=filled, other=0) + nth // across
    gaussian = tl.load(order + low, mask=filled, other=0)
    # Of the tile's pixel centres the one where the Gaussian is densest lies on a side that faces
    # its centre; a is the side across x, b that across y.
    x = tl.load(means2d + 2 * gaussian, mask=filled, other=0.0) - (column * tile).to(tl.float32)
    y = tl.load(means2d + 2 * gaussian + 1, mask=filled, other=0.0) - (row * tile).to(tl.float32)
    xx = tl.load(conics + 3 * gaussian, mask=filled, other=1.0)
    xy = tl.load(conics + 3 * gaussian + 1, mask=filled, other=0.0)
    yy = tl.load(conics + 3 * gaussian + 2, mask=filled, other=1.0)
    near_x, near_y = _within(x, tile) - x, _within(y, tile) - y
    a_y = _within(y - xy * near_x / yy, tile) - y
    b_x = _within(x - xy * near_y / xx, tile) - x
    a = 0.5 * (xx * near_x * near_x + yy * a_y * a_y) + xy * near_x * a_y
    b = 0.5 * (xx * b_x * b_x + yy * near_y * near_y) + xy * b_x * near_y
    inside = (near_x == 0) & (near_y == 0)
    least = tl.where(inside, 0.0, tl.minimum(_or_far(a, near_x), _or_far(b, near_y)))
    opacity = tl.load(opacities + gaussian, mask=filled, other=0.0)
    rendered = filled & (opacity * tl.exp(-least) >= faintest)
    number = tl.where(rendered, row * columns + column, beyond)
    tl.store(tiles + slot, number.to(tiles.dtype.element_ty), mask=in_room)
    tl.store(ids + slot, gaussian.to(tl.int32), mask=in_room)


@triton.jit
def _within(value, tile: tl.constexpr):
    """The nearest value between the first and the last pixel centre of a tile."""
    return tl.minimum(tl.maximum(value, 0.5), tile - 0.5)


@triton.jit
def _or_far(value, near):
    """Infinity for a side that does not face the centre."""
    return tl.where(near != 0, value, float("inf"))
