"""The full-size recipe is the default, and parameters that cannot act are named."""

import pytest

from stages.splat.config import StrategyConfig, TrainConfig, doubtful, inert, notes, unread
from stages.splat.training import densify

RECIPE = {
    "data_factor": 1,
    "save_ply": True,
    "pose_opt": True,
    "antialiased": True,
    "eval_steps": (3000, 7000, 30000),
    "ply_steps": (3000, 7000, 30000),
    "scale_reg": 0.0005,
    "scales_lr": 0.003,
    "means_lr": 0.00012,
    "max_steps": 30000,
}
RECIPE_STRATEGY = {
    "reset_every": 100000,
    "pause_refine_after_reset": 0,
    "prune_scale3d": 0.22,
    "prune_scale2d": 0.12,
    "prune_opa": 0.006,
    "grow_grad2d": 0.00035,
    "grow_scale3d": 0.012,
    "refine_stop_iter": 26000,
    "refine_scale2d_stop_iter": 26000,
}


def test_defaults_are_the_full_size_recipe() -> None:
    config = TrainConfig()
    assert {key: getattr(config, key) for key in RECIPE} == RECIPE
    assert {key: getattr(config.strategy, key) for key in RECIPE_STRATEGY} == RECIPE_STRATEGY


def test_the_recipes_dead_flags_are_reported() -> None:
    dead = [key for key, _ in inert(TrainConfig())]
    assert "strategy.prune_scale3d" in dead
    assert "strategy.prune_scale2d" in dead
    assert "strategy.pause_refine_after_reset" in dead


def test_flags_that_act_are_not_reported() -> None:
    strategy = StrategyConfig(reset_every=3000, pause_refine_after_reset=10)
    dead = [key for key, _ in inert(TrainConfig(strategy=strategy, init_type="both"))]
    assert dead == []


def test_rates_of_colours_are_named_where_a_user_set_them_in_vain() -> None:
    asked = {"color_opt_lr", "color_opt_reg"}
    off = "train.color_opt_lr has no effect, nor has train.color_opt_reg: color_opt is off"
    assert [line for line in notes(TrainConfig(), "train", asked) if "color" in line] == [off]
    assert not [line for line in notes(TrainConfig(), "train") if "color" in line]
    on = TrainConfig(color_opt=True)
    assert not [line for line in notes(on, "train", asked) if "color" in line]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"max_steps": 5000}, "eval_steps"),
        ({"max_steps": 5000}, "ply_steps"),
        ({"pose_opt": False}, "pose_opt_lr"),
        ({"max_steps": 400}, "strategy.refine_start_iter"),
        ({"strategy": {"halve_every": 26000}}, "strategy.halve_every"),
        ({"strategy": {"kind": "mcmc", "halve_every": 500}}, "strategy.halve_every"),
    ],
)
def test_each_dead_parameter_has_its_reason(changes: dict, key: str) -> None:
    assert dict(inert(TrainConfig(**changes)))[key]


def test_halvings_that_leave_no_time_to_grow_back_are_doubted() -> None:
    def said(**changes: object) -> list[str]:
        return [key for key, _ in doubtful(TrainConfig(**changes))]

    assert said(strategy={"halve_every": 500}) == []
    assert said(strategy={"halve_every": 500}, steps_scaler=0.1) == []
    assert said(strategy={"halve_every": 500}, steps_scaler=0.09) == ["strategy.halve_every"]
    assert said(strategy={"halve_every": 0}, steps_scaler=0.09) == []


REFINING = {
    *("prune_opa", "grow_grad2d", "grow_scale3d", "grow_scale2d", "prune_scale3d"),
    *("prune_scale2d", "refine_scale2d_stop_iter", "refine_start_iter", "refine_every"),
}
LATE = "refinement would begin after its end"
PAUSED = "pause_refine_after_reset leaves no step between two resets"


@pytest.mark.parametrize(
    ("steps", "strategy", "reason", "idle"),
    [
        (400, {}, LATE, REFINING | {"refine_stop_iter"}),
        (600, {}, LATE, REFINING | {"refine_stop_iter"}),
        (601, {}, LATE, set()),
        (30000, {"refine_stop_iter": 0}, LATE, REFINING),
        (400, {"reset_every": 100}, LATE, REFINING - {"prune_opa"}),
        (400, {"halve_every": 100}, LATE, REFINING - {"prune_opa"}),
        (400, {"halve_every": 400}, LATE, REFINING | {"refine_stop_iter"}),
        (400, {"absgrad": True}, LATE, REFINING | {"refine_stop_iter", "absgrad"}),
        (400, {"kind": "mcmc"}, LATE, {"prune_opa", "refine_start_iter", "refine_every"}),
        (3000, {"reset_every": 100, "pause_refine_after_reset": 100}, PAUSED, REFINING),
        (3000, {"reset_every": 200, "pause_refine_after_reset": 101}, PAUSED, REFINING),
        (3000, {"reset_every": 200, "pause_refine_after_reset": 100}, PAUSED, set()),
    ],
)
def test_nothing_of_refinement_acts_in_a_training_without_it(
    steps: int, strategy: dict, reason: str, idle: set[str]
) -> None:
    config = TrainConfig(max_steps=steps, strategy=StrategyConfig(**strategy))
    found = {key.removeprefix("strategy.") for key, why in inert(config) if why == reason}
    if strategy.get("kind") == "mcmc":
        idle = idle | {"refine_stop_iter"}
    if reason == PAUSED and idle:  # resets still set opacities by prune_opa
        idle = idle - {"prune_opa"}
    assert found == idle
    if strategy.get("kind", "default") == "default":
        trainer = densify.build(config, "cpu")
        refined = [
            step
            for step in range(min(steps, trainer.refine_stop_iter))
            if trainer._refines_at(step)
        ]
        assert bool(refined) == (not idle)
    keys = [key for key, _ in inert(config)]
    assert len(set(keys)) == len(keys), "each with one reason"


def test_keys_that_share_a_reason_share_a_message() -> None:
    lines = [line for line in notes(TrainConfig(max_steps=400), "train") if LATE in line]
    (line,) = lines
    assert line.startswith("train.strategy.refine_start_iter has no effect, nor have ")
    assert "train.strategy.prune_opa" in line


@pytest.mark.parametrize("entry", ["capture_train", "static_train", "pairs"])
def test_switches_that_an_entry_ignores_are_named_where_they_are_on(entry: str) -> None:
    assert list(unread(TrainConfig(), entry)) == []
    assert list(unread(TrainConfig(warm_start=True), "train")) == []
    assert [key for key, _ in unread(TrainConfig(warm_start=True), entry)] == ["warm_start"]
    assert [key for key, _ in unread(TrainConfig(test_every=1), entry)] == [], "1 holds out none"


def test_ignored_numbers_are_named_where_the_command_line_sets_them() -> None:
    overridden = {"runtime.workers", "warm_share", "max_steps"}
    lines = notes(TrainConfig(), "capture_train", overridden=overridden)
    lines = [line for line in lines if "workers" in line or "warm" in line or "max_steps" in line]
    assert [line.split(":")[0] for line in lines] == [
        "train.warm_share has no effect",
        "runtime.train.workers has no effect",
    ]


def test_params_that_only_scenes_have_are_named() -> None:
    config = TrainConfig(match_string="a", test_every=8)
    assert [key for key, _ in unread(config, "capture_train")] == ["match_string", "test_every"]
    assert [key for key, _ in unread(config, "static_train")] == ["test_every"]


def test_steps_are_scaled_down_to_whole_ones_and_never_to_none() -> None:
    config = TrainConfig(max_steps=30, steps_scaler=0.05)
    assert config.steps == 1
    assert [config.scaled(steps) for steps in (1, 19, 20, 59, 60)] == [1, 1, 1, 2, 3]


def test_a_following_timestamp_moves_as_far_in_fewer_steps_and_grows_nothing() -> None:
    config = TrainConfig(
        max_steps=1000, steps_scaler=2.0, warm_share=0.1, means_lr=1e-4, save_steps=(100,)
    )
    following = config.following()
    assert following.steps == 200
    assert following.means_lr * following.steps == pytest.approx(config.means_lr * config.steps)
    assert following.strategy.refine_stop_iter == 0
    assert following.ply_steps == following.save_steps == ()
