"""Procedural worlds: textures, ray tracing against closed forms, cameras, Gaussians, samples."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.samples.worlds import shapes
from stages.samples.worlds.building import BOX, CYLINDER, ELLIPSOID
from stages.samples.worlds.config import WorldsConfig
from stages.samples.worlds.rigs import rigs
from stages.samples.worlds.splats import Splats
from stages.samples.worlds.textures import SIDE_PX, atlas, look_up, textures
from stages.samples.worlds.tracing import Cameras, blocked, closest, trace
from stages.samples.worlds.triples import make, seeds, trace_group

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SMALL = WorldsConfig(
    worlds=1,
    shapes=24,
    textures=9,
    cameras=6,
    targets=2,
    width_px=40,
    height_px=48,
    points=120,
    gaussians=400,
    steps=16,
    cycle_every=2,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return textures(18, generator(), CPU)


def test_textures_differ_and_depend_on_the_generator_alone(images: Tensor) -> None:
    assert images.shape == (18, 3, SIDE_PX, SIDE_PX)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, textures(18, generator(), CPU))
    assert images.flatten(1).std(dim=1).min() > 0.01
    assert torch.pdist(images.flatten(1)).min() > 1


def test_a_look_up_at_a_texel_is_that_texel_and_repeats(images: Tensor) -> None:
    source, row, column = atlas(images), 40, 200
    texture = torch.arange(18)
    u, v = torch.full((18,), (column + 0.5) / SIDE_PX), torch.full((18,), (row + 0.5) / SIDE_PX)
    fine = torch.full((18,), 1 / SIDE_PX)
    expected = images[:, :, row, column]
    torch.testing.assert_close(look_up(source, texture, u, v, fine), expected, atol=1e-4, rtol=0)
    again = look_up(source, texture, u + 3, v - 2, fine)
    torch.testing.assert_close(again, expected, atol=1e-3, rtol=0)


def test_a_look_up_of_a_wide_footprint_is_an_average(images: Tensor) -> None:
    texture, at = torch.arange(18), torch.full((18,), 1 / 4)
    seen = look_up(atlas(images), texture, at, at, torch.full((18,), 0.5))
    blocks = torch.nn.functional.avg_pool2d(images, SIDE_PX // 2)
    torch.testing.assert_close(seen, blocks[:, :, 0, 0], atol=1e-4, rtol=0)


def one_world(*rows: tuple) -> shapes.Worlds:
    """A world of a hollow box of 10 units and these shapes: centre, half size, quadric."""
    rows = (((0, 0, 0), (10, 10, 10), BOX), *rows)
    centre, half, quadric = (
        torch.tensor([row[k] for row in rows], dtype=torch.float32)[None] for k in range(3)
    )
    count = len(rows)
    return shapes.Worlds(
        centre=centre,
        rotation=torch.eye(3).expand(1, count, 3, 3),
        half_size=half,
        quadric=quadric,
        texture=torch.zeros(1, count, 2, dtype=torch.long),
        frequency=torch.ones(1, count, 2),
        color=torch.full((1, count, 3), 0.5),
        mix=torch.zeros(1, count, 3),
        glow=torch.zeros(1, count),
        light=torch.tensor([[[0.0, 1.5, 0.0], [0.0, 1.5, 0.0]]]),
        light_color=torch.ones(1, 2, 3),
        light_size=torch.zeros(1),
        ambient=torch.full((1, 2, 3), 0.3),
    )


@pytest.mark.parametrize(
    ("quadric", "origin", "direction", "expected"),
    [
        (BOX, (0, 0, -5), (0, 0, 1), 4.0),
        (BOX, (0.9, 0.9, -5), (0, 0, 1), 4.0),
        (ELLIPSOID, (0, 0, -5), (0, 0, 1), 4.0),
        (ELLIPSOID, (0.6, 0, -5), (0, 0, 1), 4.2),
        (ELLIPSOID, (0.9, 0.9, -5), (0, 0, 1), 15.0),  # past it, to the wall
        (CYLINDER, (0.6, 0.5, -5), (0, 0, 1), 4.2),
        (CYLINDER, (0.9, 5, 0), (0, -1, 0), 4.0),  # its flat end
        (CYLINDER, (0.9, 5, 0.9), (0, -1, 0), 15.0),
    ],
)
def test_rays_meet_shapes_where_geometry_says(
    quadric: tuple, origin: tuple, direction: tuple, expected: float
) -> None:
    world = one_world(((0, 0, 0), (1, 1, 1), quadric))
    start, way = (torch.tensor([[one]], dtype=torch.float32) for one in (origin, direction))
    distance, shape = closest(world, start, way)
    assert float(distance) == pytest.approx(expected, abs=1e-4)
    assert int(shape) == (0 if expected == 15 else 1)
    reach = torch.full((1, 1), 5.0)
    assert bool(blocked(world, start, way, reach)) is (expected < 5)


def test_depth_and_shadow_of_a_traced_scene() -> None:
    world = one_world(((0, -2, 0), (4, 0.1, 4), BOX), ((0, 0, 0), (1, 0.1, 1), BOX))
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # looks along -y
    pose[2, 3] = 4.5
    K = torch.tensor([[20.0, 0, 16], [0, 20, 16], [0, 0, 1]])
    cameras = Cameras(K[None, None], pose[None, None])
    image, depth = trace(world, atlas(torch.full((9, 3, SIDE_PX, SIDE_PX), 0.5)), cameras, 32, 32)
    assert float(depth[0, 0, 16, 16]) == pytest.approx(4.4, abs=1e-3)
    assert float(depth[0, 0, 16, 4]) == pytest.approx(6.4, abs=1e-3)
    # From the light 1.4 above it the plate of 1 shades the floor up to 3.4 / 1.4 from the middle,
    # which is 7.6 px; it hides the inner 4.5 px.
    floor = image[0, 0].mean(dim=0)[16]
    assert floor[6:8].min() > floor[9:11].max() + 0.05


def test_worlds_depend_on_their_seed_alone() -> None:
    one, same, other = (shapes.worlds([(seed, 0, 0, 3)], 9, 40) for seed in (1, 1, 2))
    assert torch.equal(one.centre, same.centre)
    assert not torch.equal(one.centre, other.centre)
    together = shapes.worlds([(2, 0, 0, 3), (1, 0, 0, 3)], 9, 40)
    assert torch.equal(together.centre[1], one.centre[0])


def test_calibrations_err_like_small_structure_from_motion() -> None:
    rig = rigs([(5, 0, 0, k) for k in range(40)], 12, 192, 256)
    wrong, true = (one.cam_from_world[..., :3, :3] for one in (rig.calibrated, rig.true))
    trace_of = (wrong @ true.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = torch.rad2deg(torch.acos(((trace_of - 1) / 2).clamp(-1, 1)))
    assert 0.03 < float(angle.median()) < 0.5
    focal = rig.calibrated.K[..., 0, 0] / rig.true.K[..., 0, 0] - 1
    assert 0.0005 < float(focal.abs().median()) < 0.01
    sources = rig.is_source.sum(dim=1)
    assert sources.min() >= 2
    assert sources.max() < 12
    determinant = torch.linalg.det(wrong)
    torch.testing.assert_close(determinant, torch.ones_like(determinant), atol=1e-4, rtol=0)


def test_gaussians_learn_the_sources_and_multiply() -> None:
    config = SMALL.model_copy(update={"steps": 60})
    group = trace_group(config, 0, False, generator(), CPU)
    sources = torch.arange(3)[None]
    cameras, images = group.rig.true.take(sources), group.images[:, :3]
    points = torch.rand(1, 120, 3, generator=generator()) * 2 - 1
    splats = Splats(points, torch.rand(1, 120, 3, generator=generator()), config, generator())

    def error() -> float:
        rendered, _ = splats.render(cameras, 40, 48)
        return float((rendered - images).square().mean())

    before, used = error(), int((splats.params["opacities"] > -9).sum())
    splats.train(cameras, images, 60, generator())
    assert error() < 0.7 * before
    assert used < int((splats.params["opacities"] > -9).sum()) <= config.gaussians


def test_samples_of_a_group_and_of_a_cycle() -> None:
    again = [make(SMALL, 4, 0, CPU) for _ in range(2)]
    cycle = make(SMALL, 4, 1, CPU)
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))
    assert again[0].image.shape == (6, 3, 48, 40)
    assert cycle.warped.shape == (4, 4, 4, 40, 48)  # on its side; two trainings
    rgb, agreement = again[0].warped.split([3, 1], dim=2)
    rounded = agreement.float().mean(), rgb.float().mean()
    assert all(0 < one < 255 for one in rounded)
    assert agreement[:, 0].float().mean() > 5  # of 255: the nearest source sees something


def test_training_and_validation_share_no_world() -> None:
    every = [
        seed
        for number in range(4)
        for held_out in (False, True)
        for seed in seeds(SMALL.model_copy(update={"worlds": 8}), number, held_out)
    ]
    assert len(set(every)) == len(every)
    training, held_out = (trace_group(SMALL, 0, one, generator(), CPU).images for one in (0, 1))
    assert float((training - held_out).abs().mean()) > 0.02


def test_worlds_know_nothing_of_the_scenes_of_a_study() -> None:
    folder = ROOT / "stages" / "samples" / "worlds"
    pending, known = list(folder.glob("*.py")), set()
    while pending:
        path = pending.pop()
        if path in known:
            continue
        known.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
            elif isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            for name in names:
                file = ROOT / (name.replace(".", "/") + ".py")
                if name.startswith("stages.") and file.is_file():
                    pending.append(file)
    reached = {path.relative_to(ROOT).as_posix() for path in known}
    assert "stages/samples/worlds/triples.py" in reached
    assert not [
        one for one in reached if one.startswith(("stages/scenes/demo", "stages/scenes/study"))
    ]
    # The embedded scenes draw from small seeds of up to three numbers.
    theirs = {np.random.default_rng(one).random() for one in ((0, 0, 7), (0, 1, 7), (0, 0), (0, 1))}
    mine = {np.random.default_rng(one).random() for one in seeds(SMALL, 7, False)}
    assert not theirs & mine
