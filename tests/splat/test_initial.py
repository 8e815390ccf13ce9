"""Where Gaussians start: sizes from neighbours, and enough of them from any number of points."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.splat.config import TrainConfig
from stages.splat.training.initial import SH_C0, left_out, parameters


def grid(side: int, spacing: float) -> np.ndarray:
    axis = spacing * np.arange(side)
    return np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)


def grey(count: int) -> np.ndarray:
    return np.full((count, 3), 51, np.uint8)


def test_size_is_the_distance_to_the_neighbours() -> None:
    points = grid(5, 0.25)
    config = TrainConfig(init_type="sfm", init_scale=2.0)
    params, origin = parameters(points, grey(125), 1.0, config)
    assert torch.allclose(params["scales"], torch.full((125, 3), float(np.log(0.5))), atol=1e-6)
    assert origin == "125 Gaussians from sfm points"


def test_size_is_the_root_mean_square_distance_to_three_neighbours() -> None:
    points = np.array([0.0, 1.0, 3.0, 7.0, 15.0])[:, None] * np.array([0.6, 0.8, 0.0])
    made, _ = parameters(points, grey(5), 1.0, TrainConfig(init_type="sfm", init_scale=1.0))
    squares = [(1, 9, 49), (1, 4, 36), (4, 9, 16), (16, 36, 49), (64, 144, 196)]
    expected = np.sqrt(np.mean(squares, axis=1))
    assert made["scales"].exp()[:, 0].tolist() == pytest.approx(expected.tolist())


def test_colour_and_opacity_are_those_of_points_and_params() -> None:
    params, _ = parameters(grid(5, 1.0), grey(125), 1.0, TrainConfig(init_opa=0.3))
    assert torch.allclose(torch.sigmoid(params["opacities"]), torch.tensor(0.3))
    assert torch.allclose(SH_C0 * params["sh0"] + 0.5, torch.tensor(0.2))
    assert params["shN"].shape == (125, 15, 3)
    assert not params["shN"].any()


def test_black_points_learn_their_colours() -> None:
    colors = np.zeros((125, 3), np.uint8)
    colors[7] = 200
    params, _ = parameters(grid(5, 1.0), colors, 1.0, TrainConfig())
    sh0 = params["sh0"].requires_grad_()
    torch.clamp_min(SH_C0 * sh0 + 0.5, 0).sum().backward()
    assert torch.equal(sh0.grad, torch.full_like(sh0, SH_C0))


def test_points_of_a_model_without_colours_start_grey(caplog) -> None:
    black = np.zeros((125, 3), np.uint8)
    params, _ = parameters(grid(5, 1.0), black, 1.0, TrainConfig())
    assert torch.allclose(SH_C0 * params["sh0"] + 0.5, torch.tensor(128 / 255))
    assert "no colours" in caplog.text


@pytest.mark.parametrize(
    ("kind", "points", "expected"),
    [
        ("auto", 0, 500),
        ("auto", 3, 500),
        ("auto", 50, 550),
        ("auto", 125, 125),
        ("sfm", 50, 50),
        ("sfm", 3, 500),
        ("random", 125, 500),
        ("both", 125, 625),
    ],
)
def test_number_by_kind(kind: str, points: int, expected: int) -> None:
    config = TrainConfig(init_type=kind, init_num_pts=500)
    params, _ = parameters(grid(5, 1.0)[:points], grey(points), 1.0, config)
    assert {len(values) for values in params.values()} == {expected}
    assert all(torch.isfinite(values).all() for values in params.values())


def test_random_points_fill_the_cube_of_init_extent() -> None:
    config = TrainConfig(init_type="random", init_num_pts=2000, init_extent=2.0)
    made, _ = parameters(np.zeros((0, 3)), grey(0), 1.5, config)
    low, high = made["means"].aminmax(dim=0)
    assert ((low >= -3.0) & (low < -2.9)).all()
    assert ((high > 2.9) & (high <= 3.0)).all()


def test_limit_holds_from_the_start_and_keeps_colours_with_points() -> None:
    points = grid(5, 1.0)
    colors = (10 * points).astype(np.uint8)
    params, _ = parameters(points, colors, 1.0, TrainConfig(max_gaussians=40))
    assert len(params["means"]) == 40
    colors_255 = 255 * (SH_C0 * params["sh0"][:, 0] + 0.5)
    assert torch.allclose(colors_255, (10 * params["means"]).clamp_min(1), atol=1e-3)


def test_what_the_limit_leaves_out_is_told_with_numbers_and_the_key(caplog) -> None:
    points = grid(5, 1.0)
    config = TrainConfig(max_gaussians=40)
    parameters(points, grey(125), 1.0, config)
    assert "train.max_gaussians: training starts from 40 of 125 sparse points" in caplog.text
    assert "raise it to 125 or more" in caplog.text
    assert left_out(125, config) == 85
    caplog.clear()
    parameters(points, grey(125), 1.0, TrainConfig(max_gaussians=125, init_type="sfm"))
    assert not caplog.text
    assert left_out(125, TrainConfig(max_gaussians=125)) == 0
    parameters(points, grey(125), 1.0, TrainConfig(max_gaussians=40, init_type="random"))
    assert "40 of the 100000 random points of train.init_num_pts fit" in caplog.text
    assert left_out(125, TrainConfig(max_gaussians=40, init_type="random")) == 0


def test_the_limit_takes_random_points_before_sparse_ones(caplog) -> None:
    points = grid(5, 1.0)
    config = TrainConfig(max_gaussians=130, init_type="both", init_num_pts=50)
    made, _ = parameters(points, grey(125), 1.0, config)
    assert len(made["means"]) == 130
    assert torch.equal(made["means"][:125], torch.tensor(points, dtype=torch.float32))
    assert "5 of the 50 random points of train.init_num_pts fit beside 125 sparse" in caplog.text


def test_points_within_the_limit_are_spread_over_all_and_follow_the_seed() -> None:
    points = grid(10, 1.0)
    chosen = [
        parameters(points, grey(1000), 1.0, TrainConfig(max_gaussians=200, seed=seed))[0]["means"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])
    # Of a tenth of the points each, along each axis.
    for axis in range(3):
        counts = torch.bincount(chosen[0][:, axis].long(), minlength=10)
        assert counts.min() > 8
        assert counts.max() < 34


@pytest.mark.parametrize("key", ["max_gaussians", "init_num_pts"])
def test_numbers_that_leave_a_gaussian_without_neighbours_are_refused(key: str) -> None:
    for count in (1, 3):
        with pytest.raises(ValidationError, match="at least 4: sizes are distances to three"):
            TrainConfig(**{key: count})


@pytest.mark.parametrize("kind", ["auto", "sfm", "random", "both"])
@pytest.mark.parametrize("points", [0, 1, 4, 125])
def test_fewest_gaussians_have_a_size(kind: str, points: int) -> None:
    config = TrainConfig(init_type=kind, max_gaussians=4, init_num_pts=4)
    made, _ = parameters(grid(5, 1.0)[:points], grey(points), 1.0, config)
    assert made["scales"].shape == (4, 3)
    assert torch.isfinite(made["scales"]).all()


def test_points_at_one_place_get_a_finite_size() -> None:
    params, _ = parameters(np.zeros((8, 3)), grey(8), 1.0, TrainConfig(init_type="sfm"))
    assert torch.isfinite(params["scales"]).all()
