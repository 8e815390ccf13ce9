"""Covisibility on planes whose depths are known in closed form."""

import numpy as np
import pytest
import torch

from stages.scenes.cameras import Camera, look_at
from stages.scenes.frames import Sim3
from stages.splat.gaussians import Gaussians
from stages.splat.views.covisible import CovisibleRule, covisible
from stages.splat.views.visibility import DepthView, depth_view, visible_counts

SIZE = 32
WALL = 4.0  # depth of the wall z = 4 from cameras at z = 0


def camera(x: float = 0.0, towards: tuple = (0.0, 0.0, 1.0), z: float = 0.0) -> Camera:
    K = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    eye = np.array([x, 0.0, z])
    return Camera("c", K, look_at(eye, eye + np.array(towards), [0, -1, 0]), SIZE, SIZE)


def facing(x: float = 0.0, depth: float = WALL) -> DepthView:
    """A view at right angles to the wall."""
    return DepthView(camera(x), torch.full((SIZE, SIZE), depth))


def test_all_is_visible_from_the_same_camera() -> None:
    assert visible_counts(facing(), [facing()], 0.01).eq(1).all()


def test_pixels_outside_the_other_image_are_not_visible() -> None:
    # Shifted by x = 1, the wall's pixels move by f * 1 / 4 = 8 px.
    counts = visible_counts(facing(), [facing(1.0)], 0.01)
    assert counts[:, 8:].eq(1).all()
    assert counts[:, :8].eq(0).all()


def test_points_behind_the_camera_are_not_visible() -> None:
    away = DepthView(camera(towards=(0.0, 0.0, -1.0)), torch.full((SIZE, SIZE), WALL))
    beyond = DepthView(camera(z=8.0), torch.full((SIZE, SIZE), WALL))
    assert visible_counts(facing(), [away, beyond], 0.01).eq(0).all()


def test_an_occluder_in_front_hides_the_wall() -> None:
    depth = torch.full((SIZE, SIZE), WALL)
    depth[:, 20:] = 2.0
    counts = visible_counts(facing(), [DepthView(camera(), depth)], 0.05)
    assert counts[:, :20].eq(1).all()
    assert counts[:, 20:].eq(0).all()


def test_a_nearer_surface_is_another_one() -> None:
    assert visible_counts(facing(depth=2.0), [facing(depth=4.0)], 0.05).eq(0).all()


def test_depths_agree_within_the_tolerance() -> None:
    assert visible_counts(facing(), [facing(depth=WALL * 1.04)], 0.05).eq(1).all()
    assert visible_counts(facing(), [facing(depth=WALL * 1.06)], 0.05).eq(0).all()


def test_slanted_view_of_the_wall_agrees_with_its_own_depth() -> None:
    slanted = camera(towards=(0.3, 0.0, 1.0))
    rays = np.linalg.inv(slanted.K) @ np.stack(
        [*(np.mgrid[0:SIZE, 0:SIZE][::-1].reshape(2, -1) + 0.5), np.ones(SIZE**2)]
    )
    forward = (slanted.cam_from_world[:3, :3].T @ rays)[2].reshape(SIZE, SIZE)
    exact = DepthView(slanted, torch.tensor(WALL / forward, dtype=torch.float32))
    counts = visible_counts(facing(), [exact], 0.02)
    on_wall = (np.arange(SIZE) + 0.5 - SIZE / 2) / SIZE * WALL
    points = np.stack(np.meshgrid(on_wall, on_wall), axis=-1)
    world = np.concatenate([points, np.full((SIZE, SIZE, 1), WALL)], -1).reshape(-1, 3)
    pixels, _ = slanted.project(world)
    inside = ((pixels > 0.01) & (pixels < SIZE - 0.01)).all(1).reshape(SIZE, SIZE)
    assert 0.3 < inside.mean() < 0.95
    assert (counts.numpy()[inside] == 1).mean() > 0.99
    outside = ((pixels < -0.01) | (pixels > SIZE + 0.01)).any(1).reshape(SIZE, SIZE)
    assert counts.numpy()[outside].max() == 0


def test_nothing_is_visible_without_a_surface() -> None:
    empty = DepthView(camera(), torch.zeros(SIZE, SIZE))
    assert visible_counts(empty, [facing()], 0.05).eq(0).all()
    assert visible_counts(facing(), [empty], 0.05).eq(0).all()


def test_views_of_mixed_sizes_add_up() -> None:
    small = camera().resized(16, 16)
    views = [facing(), DepthView(small, torch.full((16, 16), WALL)), facing(1.0)]
    counts = visible_counts(facing(), views, 0.01)
    assert counts[:, 8:].eq(3).all()
    assert counts[:, :8].eq(2).all()


@pytest.mark.parametrize(("views", "needed"), [(1, 1), (2, 2), (3, 3), (40, 3), (80, 4), (81, 5)])
def test_rule_has_a_minimum_number_and_share(views: int, needed: int) -> None:
    assert CovisibleRule(3, 0.05, 0.05).needed(views) == needed


@pytest.mark.parametrize(("opacity", "depth"), [(0.4, 0.0), (0.6, WALL)])
def test_what_is_mostly_transparent_is_no_surface(opacity: float, depth: float) -> None:
    """A single Gaussian, so flat and wide that its opacity is that of the middle pixels."""
    gaussians = Gaussians(
        means=torch.tensor([[0.0, 0.0, WALL]]),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        log_scales=torch.tensor([[10.0, 10.0, 0.001]]).log(),
        opacity_logits=torch.logit(torch.tensor([opacity])),
        sh0=torch.zeros(1, 1, 3),
        shN=torch.zeros(1, 0, 3),
        world_from_norm=Sim3.identity(),
        antialiased=False,
    )
    middle = depth_view(gaussians, camera(), "cpu").depth[15:17, 15:17]
    assert torch.allclose(middle, torch.tensor(depth), atol=1e-3)


def test_chunk_sizes_do_not_change_the_result() -> None:
    rng = torch.Generator().manual_seed(0)
    count = 300
    means = torch.rand(count, 3, generator=rng) * torch.tensor([6.0, 6.0, 1.0])
    gaussians = Gaussians(
        means=means + torch.tensor([-3.0, -3.0, 3.5]),
        quats=torch.randn(count, 4, generator=rng),
        log_scales=torch.full((count, 3), -1.2),
        opacity_logits=torch.full((count,), 4.0),
        sh0=torch.zeros(count, 1, 3),
        shN=torch.zeros(count, 0, 3),
        world_from_norm=Sim3.identity(),
        antialiased=False,
    )
    training = [camera(x) for x in (-1.0, -0.5, 0.0, 0.6, 1.2)]
    rule = CovisibleRule(5, 0.05, 0.05)
    results = [
        covisible(gaussians, [camera(0.2)], training, rule, "cpu", chunk, micro)[0]
        for chunk, micro in ((1, 1), (2, 3), (32, 8))
    ]
    assert 0.1 < results[0].float().mean() < 1
    assert all(torch.equal(results[0], one) for one in results[1:])
