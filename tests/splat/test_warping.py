"""Warps of images on a wall whose colours are known in closed form, and on Gaussians."""

import math

import numpy as np
import pytest
import torch
from known_scene import known_gaussians, ring
from torch import Tensor
from torch.nn.functional import avg_pool2d

from stages.scenes.cameras import Camera, look_at, rigid
from stages.splat.render import render
from stages.splat.views.visibility import SAME_SURFACE, DepthView, depth_view, visible_counts
from stages.splat.views.warping import refined_depth, warp, warped_images

WIDTH, HEIGHT = 40, 24
WALL = 4.0  # depth of the wall z = 4 from cameras at z = 0
K = np.array([[30.0, 0.5, 19.0], [0.0, 28.0, 13.0], [0.0, 0.0, 1.0]])


def camera(eye: tuple = (0.0, 0.0, 0.0), at: tuple = (0.0, 0.0, WALL)) -> Camera:
    return Camera("c", K, look_at(eye, at, [0, -1, 0]), WIDTH, HEIGHT)


def on_wall(one: Camera) -> tuple[DepthView, np.ndarray]:
    """Depth and image of a wall whose colour is linear in x, y; by NumPy, per pixel."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(one.K).T
    in_world = rays @ one.world_from_cam[:3, :3].T
    depth = (WALL - one.centre[2]) / in_world[..., 2]
    points = in_world * depth[..., None] + one.centre
    x, y = points[..., 0], points[..., 1]
    image = np.stack([0.5 + 0.1 * x, 0.5 + 0.1 * y, 0.5 + 0.05 * (x - y)], -1)
    return DepthView(one, torch.from_numpy(depth.astype(np.float32))), image.astype(np.float32)


def test_a_wall_keeps_its_colours_in_every_view() -> None:
    target, truth = on_wall(camera())
    turned, image = on_wall(camera((0.8, -0.3, 0.5), (0.5, 0.1, WALL)))
    rgb, valid = warp(target, [turned], [image])[0].split([3, 1])
    assert 0.5 < valid.mean() < 1
    error = (rgb.permute(1, 2, 0) - torch.from_numpy(truth)).abs().amax(-1)
    assert error[valid[0] > 0].quantile(0.95) < 1e-3  # all but pixels at the source's border
    assert rgb[:, valid[0] == 0].eq(0).all()


def test_the_same_camera_gives_the_image_itself() -> None:
    target, image = on_wall(camera())
    warped = warp(target, [target], [image])[0]
    torch.testing.assert_close(
        warped[:3], torch.from_numpy(image).permute(2, 0, 1), atol=1e-5, rtol=0
    )
    assert warped[3].gt(0.999).all()


def test_agreement_is_high_where_the_sources_see_the_point() -> None:
    gaussians, (target, *others) = known_gaussians(), ring(4)
    view = depth_view(gaussians, target, "cpu")
    sources = [depth_view(gaussians, one, "cpu") for one in others]
    images = [render(gaussians, one, "cpu").rgb.numpy() for one in others]
    warped = warp(view, sources, images)
    seen = warped[:, 3] >= math.exp(-1)
    assert torch.equal(seen.sum(0).int(), visible_counts(view, sources, SAME_SURFACE))
    assert 0.02 < seen.float().mean() < 0.9
    assert warped.amin() >= 0
    assert warped.amax() <= 1


def test_agreement_falls_with_the_difference_of_depths() -> None:
    target, image = on_wall(camera())
    for factor, expected in ((1.0, 1.0), (1 / 1.05, math.exp(-1)), (0.8, math.exp(-5)), (0.5, 0.0)):
        other = DepthView(target.camera, factor * target.depth)
        warped = warp(target, [other], [image])[0]
        # 1.05 times as deep is a difference of 5 % of the source's depth.
        torch.testing.assert_close(
            warped[3], torch.full((HEIGHT, WIDTH), expected), atol=1e-4, rtol=0
        )
        assert (warped[:3].mean() > 0.1) == (expected > 0), "colours are there while depths agree"


def test_pixels_without_a_surface_or_masked_are_empty() -> None:
    target, image = on_wall(camera())
    depth, holed = target.depth.clone(), target.depth.clone()
    depth[:4], holed[:, 30:] = 0.0, 0.0
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[:, :5] = False
    warped = warp(
        DepthView(target.camera, depth), [DepthView(target.camera, holed)], [image], [valid]
    )
    expected = torch.zeros(HEIGHT, WIDTH)
    expected[4:, 5:30] = 1
    torch.testing.assert_close(warped[0, 3], expected, atol=1e-4, rtol=0)
    assert warped[0, :3, expected == 0].eq(0).all()


def test_a_camera_that_looks_away_gives_nothing() -> None:
    target, image = on_wall(camera())
    away = DepthView(camera((0.0, 0.0, 0.0), (0.0, 0.0, -1.0)), target.depth)
    assert warp(target, [away], [image]).eq(0).all()


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (3, 2)])
def test_the_count_cuts_sources_and_pads_absent_ones(count: int, kept: int) -> None:
    target, image = on_wall(camera())
    warped = warp(target, [target, target], [image, image], count=count)
    assert warped.shape == (count, 4, HEIGHT, WIDTH)
    assert warped[:kept, 3].gt(0.999).all()
    assert warped[kept:].eq(0).all()


def test_sources_may_have_other_sizes() -> None:
    target, image = on_wall(camera())
    small = target.camera.resized(WIDTH // 2, HEIGHT // 2)
    depth = target.depth[::2, ::2]
    half = torch.from_numpy(image).unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).mean((1, 3))
    warped = warp(target, [DepthView(small, depth)], [half.numpy()])[0]
    inner = (slice(None), slice(2, -2), slice(2, -2))
    truth = torch.from_numpy(image).permute(2, 0, 1)
    torch.testing.assert_close(warped[:3][inner], truth[inner], atol=1e-4, rtol=0)


def matrices(views: list[DepthView]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.stack([view.depth for view in views]),
        torch.stack([torch.tensor(view.camera.K) for view in views]),
        torch.stack([torch.tensor(view.camera.cam_from_world) for view in views]),
    )


def test_a_batch_gives_what_its_views_give() -> None:
    views = [on_wall(camera((0.3 * k, 0.1 * k, 0.0))) for k in range(5)]
    sources, images = zip(*views[2:], strict=True)
    each = torch.stack([warp(target, sources, images) for target, _ in views[:2]])
    of_sources = [one.expand(2, *one.shape) for one in matrices(list(sources))]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).expand(2, 3, 3, HEIGHT, WIDTH)
    batch = warped_images(*matrices([target for target, _ in views[:2]]), pixels, *of_sources)
    torch.testing.assert_close(batch, each, atol=1e-5, rtol=0)


def test_the_origin_of_the_world_does_not_enter() -> None:
    shift = rigid(np.eye(3), [5e5, 4e6, 300.0])

    def moved(view: DepthView) -> DepthView:
        pose = view.camera.cam_from_world @ np.linalg.inv(shift)
        return DepthView(view.camera.moved(pose), view.depth)

    (target, _), (source, image) = on_wall(camera()), on_wall(camera((0.6, 0.0, 0.0)))
    near, far = warp(target, [source], [image]), warp(moved(target), [moved(source)], [image])
    torch.testing.assert_close(far, near, atol=1e-5, rtol=0)


def textured(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours of a wall with detail in all directions."""
    return 0.5 + 0.4 * np.stack(
        [np.sin(5 * x) * np.cos(4 * y), np.sin(3 * x + 4 * y), np.cos(4 * x - 5 * y)], -1
    )


def test_a_wrong_depth_is_refined_where_the_sources_show_it() -> None:
    """Depths 5 % off come back to the wall, and the colours with them."""
    ends = [(0.0, 0.0, 0.0), (0.9, 0.0, 0.0), (-0.8, 0.3, 0.0), (0.1, -0.8, 0.2)]
    views, images = [], []
    for eye in ends:
        view, ramp = on_wall(camera(eye, (eye[0], eye[1], WALL)))
        image = textured(10 * (ramp[..., 0] - 0.5), 10 * (ramp[..., 1] - 0.5))
        views.append(view)
        images.append(image.astype(np.float32))
    render_ = torch.from_numpy(images[0])
    rough = DepthView(views[0].camera, 1.05 * views[0].depth)
    before = warp(rough, views[1:], images[1:])
    after = warp(rough, views[1:], images[1:], render=render_)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    known = (after[inner][:, 3:] > 0) & (before[inner][:, 3:] > 0)
    truth = render_.permute(2, 0, 1)[None, :, 4:-4, 4:-4]
    errors = [
        ((one[inner][:, :3] - truth).abs() * known).sum() / known.sum() for one in (before, after)
    ]
    assert errors[1] < 0.35 * errors[0]
    seen = (before[:, 3] > 0) & (after[:, 3] > 0)
    assert torch.equal(after[:, 3][seen], before[:, 3][seen]), "agreement is of the rough depths"


def test_a_right_depth_stays() -> None:
    target, image = on_wall(camera())
    source, beside = on_wall(camera((0.7, 0.0, 0.0), (0.7, 0.0, WALL)))
    still = warp(target, [source], [beside], render=torch.from_numpy(image))
    torch.testing.assert_close(still, warp(target, [source], [beside]), atol=0.01, rtol=0)


@pytest.mark.parametrize("eyes", [[0.9], [0.5, 0.9]], ids=["one source", "both on one side"])
def test_a_blurred_render_moves_no_right_depth_out_of_the_sources(eyes: list[float]) -> None:
    views, images = [], []
    for x in (0.0, *eyes):
        view, ramp = on_wall(camera((x, 0.0, 0.0), (x, 0.0, WALL)))
        image = textured(10 * (ramp[..., 0] - 0.5), 10 * (ramp[..., 1] - 0.5))
        views.append(view)
        images.append(image.astype(np.float32))
    render_ = torch.from_numpy(images[0]).permute(2, 0, 1)[None]
    blurred = avg_pool2d(render_, 9, 1, 4, count_include_pad=False)[0].permute(1, 2, 0)
    before = warp(views[0], views[1:], images[1:])
    after = warp(views[0], views[1:], images[1:], render=blurred)
    assert torch.equal(after[:, 3] > 0, before[:, 3] > 0)
    if len(eyes) == 1:
        assert torch.equal(after, before), "nothing to compare the source with"


def test_a_batch_is_refined_as_its_views_are() -> None:
    views = [on_wall(camera((0.3 * k, 0.1 * k, 0.0))) for k in range(4)]
    renders = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for _, image in views[:2]])
    depth, Ks, poses = matrices([view for view, _ in views])
    pixels = torch.from_numpy(np.stack([image for _, image in views[2:]])).permute(0, 3, 1, 2)
    sources = (
        pixels.expand(2, -1, -1, -1, -1),
        *(one[2:].expand(2, *one[2:].shape) for one in (depth, Ks, poses)),
    )
    batch = refined_depth(1.04 * depth[:2], Ks[:2], poses[:2], renders, [sources])
    for index in range(2):
        each = [tuple(one[index] for one in sources)]
        alone = refined_depth(1.04 * depth[index], Ks[index], poses[index], renders[index], each)
        assert (batch[index] == alone).float().mean() > 0.98
