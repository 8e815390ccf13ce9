"""Samples from procedural worlds: degraded render, ground truth, warped references.

A group of worlds is traced, its Gaussians are trained from the sources with the cameras as a
calibration would have them, and the targets are rendered. Four things degrade a render, as
published for DiFix (Wu et al. 2025): few views, training that has not ended, training on renders of
other Gaussians (cycle reconstruction), and targets of another camera of a rig (cross reference).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.samples.batches import seeded
from stages.samples.worlds import shapes
from stages.samples.worlds.config import WorldsConfig
from stages.samples.worlds.rigs import Rig, rigs
from stages.samples.worlds.splats import Splats
from stages.samples.worlds.textures import atlas, textures
from stages.samples.worlds.tracing import Cameras, trace
from stages.splat.views.warping import warped_images

_SOURCES = 8  # places for sources; those of a world are repeated to fill them
# Shares of the steps after which Gaussians are rendered: some trainings have not ended.
_ENDS = ((0.3, 0.6), (0.6, 0.9), (1.0, 1.0))
_SIZES = (1.0, 1.4, 0.7, 1.4)  # of the config's number of Gaussians, group by group
_CYCLE_STEPS = 0.5  # share of the steps that the second training of a cycle has
_TRAINING, _HELD_OUT = 0, 1
# NumPy takes (0, 1) and (0, 1, 0) for the same seed: no seed of another generator starts with this.
_SALT = 0x576F726C


class Triples(NamedTuple):
    """Samples, uint8."""

    image: Tensor  # [n, 3, H, W]
    target: Tensor  # [n, 3, H, W]
    warped: Tensor  # [n, K, 4, H, W]
    reference: Tensor  # [n, 3, H, W], the image of the first one's camera


class Group(NamedTuple):
    """Traced worlds with their cameras."""

    rig: Rig
    images: Tensor  # [W, C, 3, H, W']
    depths: Tensor  # [W, C, H, W']


def seeds(config: WorldsConfig, number: int, held_out: bool) -> list[tuple[int, ...]]:
    """Seeds of the worlds of a group: no two groups share one, nor training and validation."""
    purpose = _HELD_OUT if held_out else _TRAINING
    return [(_SALT, config.seed, purpose, number, one) for one in range(config.worlds)]


def trace_group(
    config: WorldsConfig,
    number: int,
    held_out: bool,
    generator: torch.Generator,
    device: torch.device,
) -> Group:
    """Trace the worlds of a group; every second group has images on their side."""
    size = (config.width_px, config.height_px)
    width, height = size if number % 2 == 0 else size[::-1]
    mine = seeds(config, number, held_out)
    pictures = atlas(textures(config.textures, generator, device))
    worlds = shapes.worlds(mine, config.textures, config.shapes).to(device)
    rig = rigs(mine, config.cameras, width, height).to(device)
    images, depths = trace(worlds, pictures, rig.true, width, height)
    return Group(rig, _exposed(images, generator), depths)


def _exposed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [W, C, 3, H, W'] with the brightness and contrast that a camera would choose."""
    draw = torch.rand(2, len(images), generator=generator).to(images.device)
    mean = images.mean(dim=(1, 2, 3, 4))
    spread = (images - mean.view(-1, 1, 1, 1, 1)).square().mean(dim=(1, 2, 3, 4)).sqrt()
    gain = ((0.14 + 0.12 * draw[0]) / spread.clamp(min=0.02)).clamp(0.8, 2.2)
    middle = 0.3 + 0.25 * draw[1]
    gain, mean, middle = (one.view(-1, 1, 1, 1, 1) for one in (gain, mean, middle))
    return (gain * (images - mean) + middle).clamp(0, 1)


def make(
    config: WorldsConfig,
    references: int,
    number: int,
    device: torch.device,
    held_out: bool = False,
) -> Triples:
    """All samples of one group of worlds, which depend on the config and the number alone.

    Args:
        config: of the worlds and their Gaussians.
        references: warped images per sample; absent ones are 0.
        number: of the group.
        device: of the work and the result.
        held_out: for validation: other worlds than any for training.
    """
    generator = seeded("worlds", config.seed, held_out, number)
    group = trace_group(config, number, held_out, generator, device)
    sources = _choose(group.rig.is_source, _SOURCES, generator)
    targets = _choose(~group.rig.is_source, config.targets, generator)
    count = int(config.gaussians * _SIZES[number // 2 % len(_SIZES)])
    config = config.model_copy(update={"gaussians": count})
    splats = _begin(config, group.rig.calibrated, group.images, group.depths, sources, generator)
    cameras = group.rig.calibrated.take(sources)
    images = _taken(group.images, sources)
    made = []
    if config.cycle_every and number % config.cycle_every == config.cycle_every - 1:
        splats.train(cameras, images, config.steps, generator)
        made.append(_rendered(references, group, splats, sources, targets))
        splats = _cycled(config, group, splats, targets, generator)
        # The first sources are rendered from what the renders of the targets have trained.
        made.append(
            _rendered(references, group, splats, targets, sources[:, : config.targets], sources)
        )
    else:
        done = 0
        for first, last in _ENDS:
            share = first + (last - first) * torch.rand((), generator=generator).item()
            splats.train(cameras, images, int(share * config.steps) - done, generator)
            done = int(share * config.steps)
            made.append(_rendered(references, group, splats, sources, targets))
    return Triples(*(torch.cat(parts) for parts in zip(*made, strict=True)))


def _begin(
    config: WorldsConfig,
    cameras: Cameras,
    images: Tensor,
    depths: Tensor,
    sources: Tensor,
    generator: torch.Generator,
) -> Splats:
    """Gaussians at sparse points of the sources' surfaces, some of them far off."""
    worlds, device = len(sources), images.device
    images, depths, cameras = (
        _taken(images, sources),
        _taken(depths, sources),
        cameras.take(sources),
    )
    height, width = depths.shape[-2:]
    # Features are found where there is contrast.
    grey = images.mean(dim=2)
    contrast = (grey[..., 1:, 1:] - grey[..., :-1, :-1]).abs() + 0.01
    contrast = torch.nn.functional.pad(contrast, (0, 1, 0, 1)).flatten(1)
    draw = torch.rand(contrast.shape, generator=generator).to(device)
    pixel = (
        (contrast.log() - (-draw.clamp(1e-9, 1 - 1e-7).log()).log())
        .topk(config.points, dim=1)
        .indices
    )
    view, place = pixel // (height * width), pixel % (height * width)
    rows = torch.arange(worlds, device=device)[:, None]
    color = images.movedim(2, -1).flatten(2, 3)[rows, view, place]
    depth = depths.flatten(2)[rows, view, place].clamp(max=30)
    spread = torch.randn(worlds, config.points, generator=generator).to(device)
    is_wrong = (torch.rand(worlds, config.points, generator=generator) < 0.08).to(device)
    depth = depth * torch.exp(torch.where(is_wrong, 0.35, 0.008) * spread)
    chosen = cameras.take(view)
    x = (place % width + 0.5 - chosen.K[..., 0, 2]) / chosen.K[..., 0, 0]
    y = (place // width + 0.5 - chosen.K[..., 1, 2]) / chosen.K[..., 1, 1]
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1) * depth[..., None]
    moved = local - chosen.cam_from_world[..., :3, 3]
    points = (chosen.cam_from_world[..., :3, :3].mT @ moved[..., None])[..., 0]
    return Splats(points, color, config, generator)


def _cycled(
    config: WorldsConfig, group: Group, splats: Splats, targets: Tensor, generator: torch.Generator
) -> Splats:
    """Gaussians that are trained on renders of the targets."""
    cameras = group.rig.calibrated.take(targets)
    height, width = group.images.shape[-2:]
    images, depths = splats.render(cameras, width, height)
    index = torch.arange(targets.shape[1], device=targets.device).expand_as(targets)
    again = _begin(config, cameras, images, depths.clamp(min=0.3), index, generator)
    again.train(cameras, images, int(_CYCLE_STEPS * config.steps), generator)
    return again


@torch.no_grad()
def _rendered(
    count: int,
    group: Group,
    splats: Splats,
    sources: Tensor,
    targets: Tensor,
    candidates: Tensor | None = None,
) -> Triples:
    """A sample per target, with the nearest `count` candidates (the sources) warped to it."""
    height, width = group.images.shape[-2:]
    candidates = sources if candidates is None else candidates
    cameras = group.rig.calibrated
    target_cameras, source_cameras = cameras.take(targets), cameras.take(candidates)
    image, depth = splats.render(target_cameras, width, height)
    _, depths = splats.render(source_cameras, width, height)
    order, is_used = _nearest(target_cameras, source_cameras, targets, candidates, count)
    rows = torch.arange(len(targets), device=targets.device)[:, None, None]
    references = group.images[rows, candidates[rows, order]]
    warped = warped_images(
        depth,
        target_cameras.K,
        target_cameras.cam_from_world,
        references,
        depths[rows, order],
        source_cameras.K[rows, order],
        source_cameras.cam_from_world[rows, order],
    )
    warped = warped * is_used[..., None, None, None]
    truth = _taken(group.images, targets)
    parts = (image, truth, warped, references[:, :, 0])
    return Triples(*(_bytes(one).flatten(0, 1) for one in parts))


def _nearest(
    targets: Cameras, sources: Cameras, target_index: Tensor, source_index: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Places of the nearest sources of each target [W, T, count], and which of them count.

    A source that is repeated counts once, and no camera is a reference of itself.
    """
    distance = (_centres(targets)[:, :, None] - _centres(sources)[:, None]).norm(dim=-1)
    same = source_index[:, :, None] == source_index[:, None]
    is_repeated = torch.tril(same, diagonal=-1).any(dim=-1)  # [W, S]
    is_self = target_index[:, :, None] == source_index[:, None]
    distance = distance.masked_fill(is_repeated[:, None] | is_self, torch.inf)
    nearest, order = distance.sort(dim=-1)
    return order[..., :count], nearest[..., :count].isfinite()


def _centres(cameras: Cameras) -> Tensor:
    pose = cameras.cam_from_world
    return -(pose[..., :3, :3].mT @ pose[..., :3, 3:])[..., 0]


def _choose(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices [W, count] of true entries [W, C], in a random order, repeated if too few."""
    worlds = []
    for one in mask.cpu():
        index = one.nonzero()[:, 0]
        index = index[torch.randperm(len(index), generator=generator)]
        worlds.append(index.repeat(-(-count // len(index)))[:count])
    return torch.stack(worlds).to(mask.device)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """Entries [W, n, ...] of values [W, C, ...] at an index [W, n]."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def _bytes(images: Tensor) -> Tensor:
    return (255 * images).round().clamp(0, 255).to(torch.uint8)
