"""Typed form of `train:` in params.yaml; class defaults are the user's full-size recipe."""

from typing import Literal

from pydantic import Field

from stages.run.params import Section


class StrategyConfig(Section):
    """When Gaussians are duplicated, split, pruned and reset: names and meaning are gsplat's."""

    kind: Literal["default", "mcmc"] = "default"
    prune_opa: float = Field(default=0.006, ge=0, le=1)
    grow_grad2d: float = Field(default=0.00035, gt=0)
    grow_scale3d: float = Field(default=0.012, gt=0)
    grow_scale2d: float = Field(default=0.05, gt=0)
    prune_scale3d: float = Field(default=0.22, gt=0)
    prune_scale2d: float = Field(default=0.12, gt=0)
    refine_scale2d_stop_iter: int = Field(default=26000, ge=0)
    refine_start_iter: int = Field(default=500, ge=0)
    refine_stop_iter: int = Field(default=26000, ge=0)
    refine_every: int = Field(default=100, ge=1)
    reset_every: int = Field(default=100000, ge=1)
    pause_refine_after_reset: int = Field(default=0, ge=0)
    absgrad: bool = False
    revised_opacity: bool = False


class TrainConfig(Section):
    """Every hyperparameter of splat training, by gsplat's and the user's own names."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 42
    workers: int = Field(default=2, ge=1)
    warm_start: bool = False
    match_string: str = ""
    test_every: int = Field(default=0, ge=0)
    data_factor: int = Field(default=1, ge=1)
    max_steps: int = Field(default=30000, ge=1)
    steps_scaler: float = Field(default=1.0, gt=0)
    eval_steps: tuple[int, ...] = (3000, 7000, 30000)
    ply_steps: tuple[int, ...] = (3000, 7000, 30000)
    save_ply: bool = True
    checkpoint_every: int = Field(default=1000, ge=1)
    max_gaussians: int = Field(default=1_000_000, ge=1)
    init_type: Literal["auto", "sfm", "random", "both"] = "auto"
    init_num_pts: int = Field(default=100_000, ge=1)
    init_extent: float = Field(default=3.0, gt=0)
    init_opa: float = Field(default=0.1, gt=0, lt=1)
    init_scale: float = Field(default=1.0, gt=0)
    global_scale: float = Field(default=1.0, gt=0)
    near_plane: float = Field(default=0.01, gt=0)
    far_plane: float = Field(default=1e10, gt=0)
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    random_bkgd: bool = False
    antialiased: bool = True
    sh_degree: int = Field(default=3, ge=0, le=3)
    sh_degree_interval: int = Field(default=1000, ge=1)
    ssim_lambda: float = Field(default=0.2, ge=0, le=1)
    opacity_reg: float = Field(default=0.0, ge=0)
    scale_reg: float = Field(default=0.0005, ge=0)
    means_lr: float = Field(default=0.00012, gt=0)
    scales_lr: float = Field(default=0.003, gt=0)
    opacities_lr: float = Field(default=0.05, gt=0)
    quats_lr: float = Field(default=0.001, gt=0)
    sh0_lr: float = Field(default=0.0025, gt=0)
    shN_lr: float = Field(default=0.000125, gt=0)  # noqa: N815
    pose_opt: bool = True
    pose_opt_lr: float = Field(default=1e-5, gt=0)
    pose_opt_reg: float = Field(default=1e-6, ge=0)
    masks: bool = False
    strategy: StrategyConfig = StrategyConfig()

    @property
    def steps(self) -> int:
        """Optimisation steps after scaling."""
        return self.scaled(self.max_steps)

    def scaled(self, steps: int) -> int:
        """A number of steps times `steps_scaler`, at least 1."""
        return max(1, int(steps * self.steps_scaler))


def inert(config: TrainConfig) -> list[tuple[str, str]]:
    """Given parameters that cannot act in this run, with the reason."""
    strategy, steps, found = config.strategy, config.steps, []
    refine_stop = min(config.scaled(strategy.refine_stop_iter), steps)
    if strategy.kind == "default":
        if config.scaled(strategy.reset_every) >= refine_stop:
            reason = f"size pruning begins after reset_every={strategy.reset_every} steps; "
            reason += f"refinement ends at {refine_stop}"
            found += [(f"strategy.{key}", reason) for key in ("prune_scale3d", "prune_scale2d")]
            found.append(("strategy.reset_every", "no reset before refinement ends"))
        if strategy.pause_refine_after_reset == 0:
            found.append(("strategy.pause_refine_after_reset", "0 pauses nothing"))
        if config.scaled(strategy.refine_start_iter) >= refine_stop:
            found.append(("strategy.refine_start_iter", "refinement would begin after its end"))
    late = [step for step in config.eval_steps if config.scaled(step) > steps]
    if late:
        found.append(("eval_steps", f"{late} lie beyond the last step, {steps}"))
    late = [step for step in config.ply_steps if config.scaled(step) > steps]
    if late and config.save_ply:
        found.append(("ply_steps", f"{late} lie beyond the last step, {steps}"))
    if config.init_type == "sfm":
        found.append(("init_num_pts", "only random points are counted by it"))
        found.append(("init_extent", "only random points are spread by it"))
    if not config.pose_opt:
        found += [(key, "pose_opt is off") for key in ("pose_opt_lr", "pose_opt_reg")]
    return found
