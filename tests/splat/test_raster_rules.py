"""Closed forms, gsplat's rules and the edge cases of the CPU backend."""

import math

import numpy as np
import pytest
import torch
from raster_reference import rasterize
from raster_scenes import HEIGHT, WIDTH, camera, hard_scene, leaves, pinhole
from torch import Tensor

from stages.splat.raster import rasterization

FOCAL, SIZE = 40.0, 33
K = torch.tensor([[FOCAL, 0, 16.5], [0, FOCAL, 16.5], [0, 0, 1]])


def spheres(
    depths: list[float], opacities: list[float], colors: list[list[float]], radius: float = 0.1
) -> dict[str, Tensor]:
    """Round Gaussians on the optical axis of the identity camera, with plain colours."""
    count = len(depths)
    means = torch.zeros(count, 3)
    means[:, 2] = torch.tensor(depths)
    quats = torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4)
    scales = torch.full((count, 3), radius)
    return {
        "means": means,
        "quats": quats,
        "scales": scales,
        "opacities": torch.tensor(opacities),
        "colors": torch.tensor(colors),
    }


def render(scene: dict[str, Tensor], size: int = SIZE, **options: object) -> tuple:
    return rasterization(
        *scene.values(), torch.eye(4)[None], K[None], size, size, backend="cpu", **options
    )


def axis_distances_squared() -> Tensor:
    """Squared distance of every pixel's centre from the optical axis [H, W], px^2."""
    steps = torch.arange(SIZE) + 0.5 - 16.5
    return steps[:, None] ** 2 + steps[None] ** 2


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_one_round_gaussian(mode: str) -> None:
    opacity, color, background = 0.8, [0.2, 0.9, 0.5], torch.tensor([[1.0, 0.5, 0.0]])
    image, alpha, info = render(
        spheres([2.0], [opacity], [color]),
        backgrounds=background,
        rasterize_mode=mode,
        render_mode="RGB+ED",
    )
    sharp = (FOCAL * 0.1 / 2) ** 2  # px^2
    variance = sharp + 0.3
    strength = opacity * (sharp / variance if mode == "antialiased" else 1)
    expected = strength * torch.exp(-axis_distances_squared() / (2 * variance))
    expected[expected < 1 / 255] = 0
    torch.testing.assert_close(alpha[0, ..., 0], expected, atol=1e-6, rtol=1e-5)
    mixed = expected[..., None] * torch.tensor(color) + (1 - expected[..., None]) * background[0]
    torch.testing.assert_close(image[0, ..., :3], mixed, atol=1e-6, rtol=1e-5)
    depth = torch.where(expected > 0, 2.0, 0.0)
    torch.testing.assert_close(image[0, ..., 3], depth, atol=1e-5, rtol=0)
    radius = math.ceil(math.sqrt(2 * math.log(255 * strength)) * math.sqrt(variance))
    assert info["radii"].tolist() == [[[radius, radius]]]
    assert info["means2d"].tolist() == [[[16.5, 16.5]]]
    assert info["depths"].tolist() == [[2.0]]


def test_nearer_gaussians_come_first_whatever_their_order() -> None:
    near, far = [1.0, 0, 0], [0, 1.0, 0]
    one, _, _ = render(spheres([2.0, 3.0], [0.6, 0.9], [near, far]))
    other, _, _ = render(spheres([3.0, 2.0], [0.9, 0.6], [far, near]))
    assert torch.equal(one, other)
    torch.testing.assert_close(one[0, 16, 16], torch.tensor([0.6, 0.4 * 0.9, 0]))


def test_alpha_is_at_most_0_999_and_a_full_pixel_takes_no_more() -> None:
    """After 0.999 the second would leave 1e-3 * 0.05 < 1e-4: it ends the pixel, unrendered."""
    colors = [[1.0], [10.0], [100.0]]
    image, alpha, _ = render(spheres([2.0, 3.0, 4.0], [1.0, 0.95, 0.5], colors))
    assert image[0, 16, 16].item() == pytest.approx(0.999, abs=1e-6)
    assert alpha[0, 16, 16].item() == pytest.approx(0.999, abs=1e-6)


def test_no_gradient_where_alpha_is_cut_at_0_999() -> None:
    inputs = leaves(spheres([2.0], [1.0], [[1.0]]))
    image, _, _ = render(inputs)
    image[0, 16, 16].backward()
    assert inputs["opacities"].grad.item() == 0
    assert inputs["colors"].grad.item() == pytest.approx(0.999, abs=1e-6)


def test_too_faint_gaussian_has_no_radius() -> None:
    image, alpha, info = render(spheres([2.0], [0.9 / 255], [[1.0]]))
    assert not info["radii"].any()
    assert not image.any()
    assert not alpha.any()


@pytest.mark.parametrize(
    ("near", "far", "visible"), [(0.01, 1e10, 3), (2.5, 1e10, 2), (2.5, 3.5, 1)]
)
def test_near_and_far_planes(near: float, far: float, visible: int) -> None:
    scene = spheres([2.0, 3.0, 4.0], [0.5] * 3, [[1.0]] * 3)
    _, _, info = render(scene, near_plane=near, far_plane=far)
    assert (info["radii"] > 0).all(-1).sum() == visible


def test_blur_is_a_parameter() -> None:
    scene, view, wide = hard_scene(0, seed=2), camera(3), pinhole(WIDTH, HEIGHT)
    image, _, _ = rasterization(
        *scene.values(),
        view[None],
        wide[None],
        WIDTH,
        HEIGHT,
        backend="cpu",
        sh_degree=0,
        eps2d=1.5,
    )
    exact = [part.double() for part in scene.values()]
    exact_render = rasterize(
        *exact, view.double(), wide.double(), WIDTH, HEIGHT, sh_degree=0, eps2d=1.5
    )
    assert (image[0] - exact_render.image).abs().max() < 1e-5


def test_radii_follow_the_cuda_rule() -> None:
    """ceil(min(3.33, sqrt(2 ln(255 o))) sigma) along each axis; 0 for what lies off the image."""
    scene, view, wide = hard_scene(0, seed=2), camera(0), pinhole(WIDTH, HEIGHT)
    _, _, info = rasterization(
        *scene.values(), view[None], wide[None], WIDTH, HEIGHT, backend="cpu", sh_degree=0
    )
    radii, conics = info["radii"][0], info["conics"][0].double()
    visible = (radii > 0).all(-1)
    assert 50 < visible.sum() < len(visible) - 10
    xx, xy, yy = conics[visible].T
    determinant = xx * yy - xy**2
    deviations = torch.stack([yy / determinant, xx / determinant], -1).sqrt()
    reach = (2 * (255 * scene["opacities"][visible].double()).log()).sqrt().clamp(max=3.33)
    expected = reach[:, None] * deviations
    # A product next to a whole number may be rounded up or not.
    assert ((radii[visible] - expected.ceil()).abs() <= (expected.frac() < 1e-3)).all()
    centres = info["means2d"][0][visible]
    size = torch.tensor([WIDTH, HEIGHT])
    assert (centres + radii[visible] > 0).all()
    assert (centres - radii[visible] < size).all()


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_see(count: int) -> None:
    """No Gaussian at all, or all of them behind the camera."""
    behind = spheres([-1.0, -2.0, 0.0], [0.5] * 3, [[0.1, 0.2, 0.3]] * 3)
    inputs = leaves({name: part[:count] for name, part in behind.items()})
    background = torch.tensor([[0.3, 0.4, 0.5]], requires_grad=True)
    image, alpha, info = render(inputs, backgrounds=background, absgrad=True, render_mode="RGB+ED")
    info["means2d"].retain_grad()
    assert torch.equal(image[0, ..., :3], background[0].expand(SIZE, SIZE, 3))
    assert not image[..., 3].any()
    assert not alpha.any()
    assert not info["radii"].any()
    (image.sum() + alpha.sum()).backward()
    assert background.grad.tolist() == [[SIZE * SIZE] * 3]
    for leaf in (*inputs.values(), info["means2d"]):
        assert not leaf.grad.any()
    assert info["means2d"].absgrad.shape == (1, count, 2)


def test_gaussians_at_and_behind_the_camera_give_finite_gradients() -> None:
    depths = [-3.0, -1e-3, 0.0, 1e-6, 0.011, 2.0]
    inputs = leaves(spheres(depths, [0.9] * 6, [[1.0]] * 6, radius=0.02))
    view = torch.eye(4, requires_grad=True)
    image, _, _ = rasterization(
        *inputs.values(),
        view[None],
        K[None],
        SIZE,
        SIZE,
        backend="cpu",
        render_mode="RGB+ED",
        rasterize_mode="antialiased",
    )
    image.sum().backward()
    assert image.isfinite().all()
    for leaf in (*inputs.values(), view):
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities"])
def test_gaussian_with_nan_is_left_out(name: str) -> None:
    scene = spheres([2.0, 3.0], [0.5, 0.8], [[1.0], [2.0]])
    without, _, _ = render({key: part[1:] for key, part in scene.items()})
    broken = {key: part.clone() for key, part in scene.items()}
    broken[name][0] = torch.nan
    inputs = leaves(broken)
    image, _, info = render(inputs)
    assert torch.equal(image, without)
    assert not info["radii"][0, 0].any()
    image.sum().backward()
    assert inputs["means"].grad.isfinite().all()


def test_length_of_a_quaternion_does_not_matter() -> None:
    scene, wide = hard_scene(0, seed=2), pinhole(WIDTH, HEIGHT)
    longer = scene | {"quats": 4 * scene["quats"]}
    gradients = []
    for one in (scene, longer):
        inputs = leaves(one)
        image, _, _ = rasterization(
            *inputs.values(),
            camera(1)[None],
            wide[None],
            WIDTH,
            HEIGHT,
            backend="cpu",
            sh_degree=0,
        )
        image.square().sum().backward()
        gradients.append(inputs["quats"].grad)
    torch.testing.assert_close(gradients[0], 4 * gradients[1], rtol=1e-4, atol=1e-6)
    along = (gradients[0] * scene["quats"]).sum(-1)
    assert along.abs().max() < 1e-4 * gradients[0].abs().max()


def test_thin_ellipse_across_the_diagonal() -> None:
    """Long and thin at 45 degrees, where float32 loses the determinant of the conic."""
    scene = spheres([2.0], [0.9], [[1.0]])
    scene["quats"] = torch.tensor([[math.cos(math.pi / 8), 0, 0, math.sin(math.pi / 8)]])
    scene["scales"] = torch.tensor([[50.0, 0.001, 0.001]])
    image, _, _ = render(scene)
    steps = torch.arange(SIZE) + 0.5 - 16.5
    across = (steps[None] - steps[:, None]) / math.sqrt(2)  # the long axis is the diagonal
    along = (steps[None] + steps[:, None]) / math.sqrt(2)
    thin, long = (0.3 + (FOCAL * scale / 2) ** 2 for scale in (0.001, 50))
    expected = 0.9 * torch.exp(-(across**2) / (2 * thin) - along**2 / (2 * long))
    expected[expected < 1 / 255] = 0
    assert (image[0, ..., 0] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("length", [1e3, 1e6, 1e12, 1e25, math.inf])
def test_endless_needles_stay_finite(length: float) -> None:
    """A run that diverges makes such Gaussians; float32 cannot tell their two axes apart."""
    scene = spheres([2.0, 3.0], [0.9, 0.9], [[1.0], [1.0]])
    scene["quats"] = torch.tensor([[0.92, 0, 0, 0.38], [0.7, 0.1, 0.3, 0.2]])
    scene["scales"] = torch.tensor([[length, 0.001, 0.001], [length, length, 0.1]])
    inputs = leaves(scene)
    image, _, _ = render(inputs)
    assert image.isfinite().all()
    assert image.min() >= 0
    assert image.max() <= 1
    if length < 1e12:
        image.sum().backward()
        assert inputs["means"].grad.isfinite().all()


def test_info_has_what_gsplat_gives() -> None:
    _, _, info = render(spheres([2.0], [0.5], [[1.0]]))
    expected = {"width", "height", "n_cameras", "radii", "gaussian_ids", "means2d", "depths"}
    assert expected <= info.keys()
    assert (info["width"], info["height"], info["n_cameras"]) == (SIZE, SIZE, 1)
    assert info["radii"].dtype == torch.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"render_mode": "RGBD"}, "render_mode 'RGBD'"),
        ({"rasterize_mode": "smooth"}, "rasterize_mode 'smooth'"),
        ({"sh_degree": 4}, "sh_degree 4"),
        ({"sh_degree": 1}, r"K >= 4 is expected"),
        ({"backgrounds": torch.zeros(1, 2)}, r"backgrounds \(1, 2\)"),
    ],
)
def test_wrong_options_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(spheres([2.0], [0.5], [[1.0, 1, 1]]), **change)


@pytest.mark.parametrize("name", ["quats", "scales", "opacities", "colors"])
def test_wrong_shapes_are_named(name: str) -> None:
    scene = spheres([2.0, 3.0], [0.5, 0.5], [[1.0]] * 2)
    scene[name] = scene[name][:1]
    with pytest.raises(ValueError, match=name):
        render(scene)


def test_too_many_channels() -> None:
    with pytest.raises(ValueError, match="5 channels"):
        render(spheres([2.0], [0.5], [[1.0] * 4]), render_mode="RGB+D")


def test_other_precision_is_refused() -> None:
    scene = spheres([2.0], [0.5], [[1.0]])
    scene["means"] = torch.from_numpy(np.zeros((1, 3)))
    with pytest.raises(TypeError, match="float64"):
        render(scene)
