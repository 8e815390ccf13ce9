"""The table of hyperparameters that a capture's training prints and stores."""

from pathlib import Path

import pytest
from small_capture import write_capture

from stages.run.files import read_json, read_tsv
from stages.scenes.dataset import Dataset
from stages.splat.captures.flags import flag_lines, flag_rows, limit_effect
from stages.splat.captures.training import split, train_capture
from stages.splat.config import StrategyConfig, TrainConfig
from stages.splat.training import densify

NEVER = "no effect: size pruning begins after 100000 steps (reset_every); refinement ends at 26000"
# The user's list, in gsplat's spelling.
RECIPE = f"""\
--disable_viewer true | no effect: there is no viewer while training
--data_factor 1 | acts
--save_ply true | acts
--pose_opt true | acts
--antialiased true | acts
--eval_steps 3000 7000 30000 | acts
--ply_steps 3000 7000 30000 | acts
--strategy.reset_every 100000 | no effect: no reset before refinement ends
--strategy.pause_refine_after_reset 0 | no effect: 0 pauses nothing
--strategy.prune_scale3d 0.22 | {NEVER}
--strategy.prune_scale2d 0.12 | {NEVER}
--strategy.prune_opa 0.006 | acts
--strategy.grow_grad2d 0.00035 | acts
--strategy.grow_scale3d 0.012 | acts
--strategy.refine_stop_iter 26000 | acts
--strategy.refine_scale2d_stop_iter 26000 | acts
--scale_reg 0.0005 | acts
--scales_lr 0.003 | acts
--means_lr 0.00012 | acts
--max_steps 30000 | acts
train.pose_opt_lr 1e-05 | acts
train.pose_opt_reg 1e-06 | acts
train.max_gaussians 1000000 | growth stops at it; gsplat has no such flag
"""


def table(config: TrainConfig) -> dict[str, tuple[str, str]]:
    rows = flag_rows(config, densify.build(config, "cuda"))
    return {row["flag"]: (row["value"], row["effect"]) for row in rows}


def test_flags_of_the_recipe_with_those_that_never_act() -> None:
    config = TrainConfig()
    rows = flag_rows(config, densify.build(config, "cpu"))
    text = "".join(f"{row['flag']} {row['value']} | {row['effect']}\n" for row in rows)
    assert text == RECIPE
    lines = flag_lines(rows)
    assert lines[1].split() == ["--data_factor", "1", "acts"]
    assert len({line.index(row["effect"]) for line, row in zip(lines, rows, strict=True)}) == 1


def test_values_are_those_that_the_trainer_uses() -> None:
    flags = table(TrainConfig(steps_scaler=0.1, pose_opt=False, save_ply=False))
    assert flags["--eval_steps"] == ("300 700 3000", "acts")
    assert flags["--strategy.reset_every"][0] == "10000"
    assert flags["--strategy.refine_scale2d_stop_iter"] == ("2600", "acts")
    assert flags["--max_steps"] == ("3000", "acts")
    assert flags["--pose_opt"] == ("false", "off")
    assert flags["train.pose_opt_lr"] == ("1e-05", "no effect: pose_opt is off")
    assert flags["--ply_steps"] == ("300 700 3000", "no effect: save_ply is off")
    flags = table(TrainConfig(max_steps=100))
    assert flags["--eval_steps"][1] == (
        "no effect: [3000, 7000, 30000] lie beyond the last step, 100"
    )
    flags = table(TrainConfig(strategy=StrategyConfig(kind="mcmc")))
    assert flags["--strategy.grow_grad2d"] == (
        "0.00035",
        "no effect: mcmc relocates Gaussians instead",
    )


def test_flags_of_refinement_do_not_act_where_a_run_ends_before_it() -> None:
    flags = table(TrainConfig(max_steps=100))
    names = ("prune_opa", "grow_grad2d", "grow_scale3d", "refine_stop_iter")
    for name in (*names, "refine_scale2d_stop_iter", "prune_scale3d"):
        effect = flags[f"--strategy.{name}"][1]
        assert effect == "no effect: refinement would begin after its end", name


def test_limit_of_gaussians_is_said_to_be_reached_where_it_was() -> None:
    config = TrainConfig(max_gaussians=9)
    assert limit_effect(config, False, [3, 8]) == "not reached: at most 8 Gaussians"
    assert limit_effect(config, True, [3, 8]) == limit_effect(config, False, [3, 9])
    assert limit_effect(config, True, [3, 8]).startswith("reached")
    assert "reached: 4 sparse points were left out" in limit_effect(config, False, [9, 7], 4)


def test_training_stores_the_flags_that_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Growth is held at 170 Gaussians; a run that resumes after that knows it."""
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    caplog.set_level("INFO")
    dataset = Dataset.read(write_capture(tmp_path / "room"))
    strategy = StrategyConfig(refine_start_iter=5, refine_every=5, refine_stop_iter=20)
    config = TrainConfig(
        backend="cpu",
        max_steps=30,
        sh_degree=0,
        max_gaussians=170,
        pose_opt_lr="auto",
        eval_steps=(30,),
        ply_steps=(),
        save_steps=(),
        strategy=strategy.model_copy(update={"grow_grad2d": 1e-9}),
    )
    views = split(dataset.views, 0, "")
    folder = tmp_path / "out"
    folder.mkdir()
    fitted = train_capture(dataset, views, config, folder, match_string="", resume_as="room")
    assert fitted.limited
    rows = read_tsv(folder / "flags.tsv")
    assert rows[-1] == {
        "flag": "train.max_gaussians",
        "value": "170",
        "effect": "reached: growth was held at it",
    }
    assert rows[4] == {"flag": "--antialiased", "value": "true", "effect": "acts"}
    assert "  --means_lr 0.00012  " in caplog.text
    # What `auto` stands for where nothing is known of the poses.
    assert rows[-3] == {"flag": "train.pose_opt_lr", "value": "1e-05", "effect": "acts"}
    assert "pose_opt_lr 1e-05 (auto), pose_opt_reg 1e-06" in caplog.text
    assert "pose_opt_lr 1e-05 (auto)" in read_json(folder / "fit.json")["poses"]
    assert "room: train.max_gaussians 170 reached: growth was held at it" in caplog.text
    again = train_capture(dataset, views, config, folder, match_string="", resume_as="room")
    assert again.limited
    assert again.curve == fitted.curve
