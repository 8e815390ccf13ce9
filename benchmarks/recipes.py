"""Recipes of training that benchmarks compare: gsplat's default, and the full-size recipe."""

from stages.splat.config import StrategyConfig, TrainConfig


def gsplat_default(steps: int) -> TrainConfig:
    """gsplat 1.5.3's example trainer without flags."""
    strategy = StrategyConfig(
        prune_opa=0.005,
        grow_grad2d=0.0002,
        grow_scale3d=0.01,
        grow_scale2d=0.05,
        prune_scale3d=0.1,
        prune_scale2d=0.15,
        refine_scale2d_stop_iter=0,
        refine_stop_iter=15_000,
        # Its reset of opacities every 3000 steps never happens, by mistake.
        reset_every=10**9,
    )
    return TrainConfig(
        max_steps=steps,
        pose_opt=False,
        antialiased=False,
        scale_reg=0.0,
        means_lr=1.6e-4,
        scales_lr=5e-3,
        strategy=strategy,
    )


def seed(steps: int) -> TrainConfig:
    """The full-size recipe: learnt poses, antialiasing, longer growth."""
    return TrainConfig(max_steps=steps)


def budget(steps: int) -> TrainConfig:
    """gsplat's default for growth held at a number of Gaussians.

    Until 4/5 of the steps, opacities are halved and Adam's moments cleared at times.
    """
    usual = gsplat_default(steps)
    changes = {"halve_every": max(steps // 14, 1), "refine_stop_iter": max(steps * 4 // 5, 1)}
    return usual.model_copy(update={"strategy": usual.strategy.model_copy(update=changes)})


RECIPES = {"default": gsplat_default, "seed": seed}
# Recipes that need a number of Gaussians, and its share of the default's.
BUDGETS = {"budget": (budget, 1.0), "fewer": (budget, 0.4)}
