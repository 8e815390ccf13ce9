"""Images of procedural worlds by ray tracing, many worlds and cameras at once.

Each pixel has four rays. Surfaces are matte or slightly glossy; each light casts soft shadows, for
which every one of the four rays goes to another point of the light, the same in all cameras. A ray
meets all shapes one after the other: a single kernel per shape on a GPU, by torch's compiler.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.samples.worlds.shapes import LIGHTS, Worlds
from stages.samples.worlds.textures import Atlas, look_up

_FAR = 1e6
_GRID = 2  # rays per side of a pixel
# Points of a light that the rays of a pixel go to, and directions to the sky, fixed.
_SPOTS = ((-0.6, 0.3, 0.5), (0.5, -0.5, -0.3), (0.2, 0.6, -0.6), (-0.3, -0.4, 0.6))
_SKY = ((0.5, 0.8, 0.3), (-0.45, 0.75, 0.5), (0.3, 0.85, -0.5), (-0.4, 0.8, -0.4))
_SKY_REACH = 1.5  # occluders farther away do not darken


class Cameras(NamedTuple):
    """Cameras of W worlds, C each."""

    K: Tensor  # [W, C, 3, 3] px
    cam_from_world: Tensor  # [W, C, 4, 4]

    def take(self, index: Tensor) -> "Cameras":
        """The cameras of each world at an index [W, c]."""
        rows = torch.arange(len(index), device=index.device)[:, None]
        return Cameras(self.K[rows, index], self.cam_from_world[rows, index])


@torch.no_grad()
def trace(
    worlds: Worlds, atlas: Atlas, cameras: Cameras, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """sRGB images [W, C, 3, H, W'] and depths along z [W, C, H, W'] of the pixels' centres.

    All tensors are on one device.
    """
    images, depths = [], []
    for camera in range(cameras.K.shape[1]):
        one = Cameras(cameras.K[:, camera], cameras.cam_from_world[:, camera])
        image, depth = _trace_one(worlds, atlas, one, width, height)
        images.append(image)
        depths.append(depth)
    return torch.stack(images, dim=1), torch.stack(depths, dim=1)


def _trace_one(
    worlds: Worlds, atlas: Atlas, camera: Cameras, width: int, height: int
) -> tuple[Tensor, Tensor]:
    rotation = camera.cam_from_world[:, :3, :3]
    origin = -(rotation.mT @ camera.cam_from_world[:, :3, 3:])[..., 0]  # [W, 3]
    total, nearest = 0, []
    for sample in range(_GRID**2):
        rays, cosine = _rays(camera, rotation, width, height, sample)
        color, distance = _shaded(worlds, atlas, origin, rays, camera.K, sample)
        total = total + color
        nearest.append(distance * cosine)
    image = _srgb(_developed(total / _GRID**2))
    depth = torch.stack(nearest).median(dim=0).values
    return image.mT.unflatten(-1, (height, width)), depth.unflatten(-1, (height, width))


def _rays(
    camera: Cameras, rotation: Tensor, width: int, height: int, sample: int
) -> tuple[Tensor, Tensor]:
    """Unit directions [W, R, 3] in the world, and the cosine to the optical axis [W, R]."""
    device = camera.K.device
    row, column = divmod(sample, _GRID)
    y = torch.arange(height, device=device) + (row + 0.5) / _GRID
    x = torch.arange(width, device=device) + (column + 0.5) / _GRID
    y, x = torch.meshgrid(y, x, indexing="ij")
    K = camera.K[..., None]
    local = torch.stack(
        [
            (x.flatten() - K[:, 0, 2]) / K[:, 0, 0],
            (y.flatten() - K[:, 1, 2]) / K[:, 1, 1],
            torch.ones(len(K), width * height, device=device),
        ],
        dim=-1,
    )
    length = local.norm(dim=-1, keepdim=True)
    return (local / length) @ rotation, 1 / length[..., 0]


def _shaded(
    worlds: Worlds, atlas: Atlas, origin: Tensor, rays: Tensor, K: Tensor, sample: int
) -> tuple[Tensor, Tensor]:
    """Linear colour [W, R, 3] and distance [W, R] of what the rays meet."""
    distance, shape = closest(worlds, origin[:, None].expand_as(rays), rays)
    points = origin[:, None] + distance[..., None] * rays
    fields = _gathered(worlds, shape)
    local = torch.einsum("wrij,wri->wrj", fields["rotation"], points - fields["centre"])
    unit = local / fields["half_size"]
    normal = _normal(fields, unit)  # in the shape's frame
    outward = torch.einsum("wrij,wrj->wri", fields["rotation"], normal)
    outward = torch.where((outward * rays).sum(-1, keepdim=True) > 0, -outward, outward)
    slant = (outward * rays).sum(-1).abs().clamp(min=0.15)
    footprint = distance / K[:, :1, 0] / _GRID / slant.sqrt()
    albedo = _albedo(atlas, fields, local, normal, shape, footprint)
    start = points + 2e-3 * outward
    light = _light(worlds, start, outward, rays, fields["mix"][..., 2], sample)
    color = albedo * light[0] + light[1]
    glow = fields["glow"][..., None]
    return torch.lerp(color, 1.4 * albedo, glow), distance


def closest(worlds: Worlds, origins: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [W, R] and number of the first shape that each ray meets; the first is hollow."""
    matrices, centres, quadrics = _by_shape(worlds)
    distance = torch.full(rays.shape[:2], _FAR, device=rays.device)
    shape = torch.zeros(rays.shape[:2], dtype=torch.int32, device=rays.device)
    visit = _on(rays.device, _visit)
    for index in range(worlds.centre.shape[1]):
        number = torch.full((), index, dtype=torch.int32, device=rays.device)
        distance, shape = visit(
            origins,
            rays,
            matrices[index],
            centres[index],
            quadrics[index],
            number,
            distance,
            shape,
        )
    return distance, shape.long()


def blocked(worlds: Worlds, origins: Tensor, rays: Tensor, reach: Tensor) -> Tensor:
    """Whether a shape but the first lies within reach [W, R] along each ray, as 0 or 1."""
    matrices, centres, quadrics = _by_shape(worlds)
    is_blocked = torch.zeros(rays.shape[:2], device=rays.device)
    visit = _on(rays.device, _block)
    for index in range(1, worlds.centre.shape[1]):
        is_blocked = visit(
            origins,
            rays,
            matrices[index],
            centres[index],
            quadrics[index],
            reach,
            is_blocked,
        )
    return is_blocked


def _by_shape(worlds: Worlds) -> tuple[Tensor, ...]:
    """Matrices to the shapes' own units [P, W, 3, 3], centres and quadrics [P, W, 3]."""
    matrices = worlds.rotation.mT / worlds.half_size[..., None]
    parts = (matrices, worlds.centre, worlds.quadric)
    return tuple(part.transpose(0, 1).contiguous() for part in parts)


def _interval(
    origins: Tensor, rays: Tensor, matrix: Tensor, centre: Tensor, quadric: Tensor
) -> tuple[Tensor, Tensor]:
    """Where rays [W, R, 3] enter and leave a shape of each world [W, R]; enter > leave: not."""
    relative = origins - centre[:, None]
    o = [(relative * matrix[:, None, axis]).sum(-1) for axis in range(3)]
    d = [(rays * matrix[:, None, axis]).sum(-1) for axis in range(3)]
    enter, leave = torch.full_like(o[0], -_FAR), torch.full_like(o[0], _FAR)
    a, b, c = 1e-12, 0.0, -1.0
    for axis in range(3):
        step = torch.where(d[axis].abs() < 1e-9, 1e-9, d[axis])
        one, other = (-1 - o[axis]) / step, (1 - o[axis]) / step
        enter = torch.maximum(enter, torch.minimum(one, other))
        leave = torch.minimum(leave, torch.maximum(one, other))
        weight = quadric[:, None, axis]
        a = a + weight * d[axis] * d[axis]
        b = b + weight * o[axis] * d[axis]
        c = c + weight * o[axis] * o[axis]
    root = b * b - a * c
    half = torch.sqrt(root.clamp(min=0))
    enter = torch.maximum(enter, torch.where(root > 0, (-b - half) / a, _FAR))
    leave = torch.minimum(leave, torch.where(root > 0, (-b + half) / a, -_FAR))
    return enter, leave


def _visit(
    origins: Tensor,
    rays: Tensor,
    matrix: Tensor,
    centre: Tensor,
    quadric: Tensor,
    number: Tensor,
    distance: Tensor,
    shape: Tensor,
) -> tuple[Tensor, Tensor]:
    enter, leave = _interval(origins, rays, matrix, centre, quadric)
    at = torch.where(number == 0, leave, enter)
    is_hit = (enter < leave) & (at > 1e-3) & (at < distance)
    return torch.where(is_hit, at, distance), torch.where(is_hit, number, shape)


def _block(
    origins: Tensor,
    rays: Tensor,
    matrix: Tensor,
    centre: Tensor,
    quadric: Tensor,
    reach: Tensor,
    is_blocked: Tensor,
) -> Tensor:
    enter, leave = _interval(origins, rays, matrix, centre, quadric)
    is_hit = (enter < leave) & (enter > 0) & (enter < reach)
    return torch.where(is_hit, 1.0, is_blocked)


_compiled: dict[str, object] = {}


def _on(device: torch.device, function):  # type: ignore[no-untyped-def]
    """The function itself on a CPU, one kernel on a GPU."""
    if device.type == "cpu":
        return function
    if function.__name__ not in _compiled:
        _compiled[function.__name__] = torch.compile(function, dynamic=False)
    return _compiled[function.__name__]


def _gathered(worlds: Worlds, shape: Tensor) -> dict[str, Tensor]:
    """Fields of the shape of each ray."""
    rows = torch.arange(len(shape), device=shape.device)[:, None]
    names = (
        "centre",
        "rotation",
        "half_size",
        "quadric",
        "texture",
        "frequency",
        "color",
        "mix",
        "glow",
    )
    return {name: getattr(worlds, name)[rows, shape] for name in names}


def _normal(fields: dict[str, Tensor], unit: Tensor) -> Tensor:
    """Unit normals in the shapes' frames: of the box's face, or of the quadric."""
    quadric = (fields["quadric"] * unit * unit).sum(-1, keepdim=True)
    box = unit.abs()
    face = torch.nn.functional.one_hot(box.argmax(dim=-1), 3).to(unit) * unit.sign()
    is_face = box.amax(dim=-1, keepdim=True) > quadric.sqrt() - 1e-4
    curved = fields["quadric"] * unit / fields["half_size"]
    normal = torch.where(is_face, face, curved)
    return normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def _albedo(
    atlas: Atlas,
    fields: dict[str, Tensor],
    local: Tensor,
    normal: Tensor,
    shape: Tensor,
    footprint: Tensor,
) -> Tensor:
    """Linear colour [W, R, 3] of surfaces, mapped from the sides of each shape's box."""
    axis = normal.abs().argmax(dim=-1)
    u = torch.where(axis == 0, local[..., 2], local[..., 0])
    v = torch.where(axis == 1, local[..., 2], local[..., 1])
    # The sides of the hollow shape are walls of their own.
    side = torch.where(shape == 0, axis + 3 * (normal.gather(-1, axis[..., None])[..., 0] > 0), 0)
    first, second = fields["texture"].unbind(-1)
    coarse, fine = fields["frequency"].unbind(-1)
    shift = 0.37 * first
    image = look_up(
        atlas,
        (first + 7 * side) % atlas.count,
        coarse * u + shift,
        shift - coarse * v,
        coarse * footprint,
    )
    grain = look_up(atlas, second, fine * u, fine * v, fine * footprint).mean(dim=-1, keepdim=True)
    share, contrast, _ = fields["mix"].unbind(-1)
    color = torch.lerp(fields["color"], image, share[..., None]) + contrast[..., None] * (
        grain - 0.5
    )
    return color.clamp(0.01, 1) ** 2.2


def _light(
    worlds: Worlds, points: Tensor, normal: Tensor, rays: Tensor, gloss: Tensor, sample: int
) -> tuple[Tensor, Tensor]:
    """Light that falls on points and that they mirror, [W, R, 3] each."""
    spot = torch.tensor(_SPOTS[sample], device=points.device)
    sky = torch.nn.functional.normalize(torch.tensor(_SKY[sample], device=points.device), dim=0)
    matte, shine = 0.0, 0.0
    reflected = rays - 2 * (rays * normal).sum(-1, keepdim=True) * normal
    for index in range(LIGHTS):
        position = worlds.light[:, index] + worlds.light_size[:, None] * spot
        towards = position[:, None] - points
        length = towards.norm(dim=-1)
        towards = towards / length[..., None]
        shadow = blocked(worlds, points, towards, length)
        strength = (1 - shadow) * 9 / (length * length + 4)
        strength = strength[..., None] * worlds.light_color[:, None, index]
        facing = (normal * towards).sum(-1, keepdim=True).clamp(min=0)
        matte = matte + facing * strength
        mirrored = (reflected * towards).sum(-1, keepdim=True).clamp(min=0)
        shine = shine + 0.6 * gloss[..., None] * mirrored**24 * strength
    hidden = blocked(
        worlds, points, sky.expand_as(points).contiguous(), torch.full_like(gloss, _SKY_REACH)
    )
    share = (0.5 + 0.5 * normal[..., 1:2]) * (1 - 0.7 * hidden[..., None])
    above, below = worlds.ambient[:, None, 0], worlds.ambient[:, None, 1]
    return matte + torch.lerp(below, above, share), shine


def _developed(radiance: Tensor) -> Tensor:
    """A film curve: mid-tones stay, highlights are compressed."""
    return radiance * (1 + radiance / 9) / (1 + 0.4 * radiance)


def _srgb(linear: Tensor) -> Tensor:
    linear = linear.clamp(0, 1)
    return torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055
    )
