"""What the steps of a training change, and a checkpoint keeps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stages.splat import color
from stages.splat.config import TrainConfig
from stages.splat.training import densify

_LR = {
    "means": "means_lr",
    "scales": "scales_lr",
    "quats": "quats_lr",
    "opacities": "opacities_lr",
    "sh0": "sh0_lr",
    "shN": "shN_lr",
}
PARAMS = tuple(_LR)
_LATE = 1e6  # steps, after which Adam corrects no bias


class TrainState:
    """Parameters, their optimisers, statistics of densification, poses and colours of cameras.

    `params` and `optimizers` go by gsplat's names, one Adam a parameter: gsplat's strategies
    replace both when they add or remove Gaussians.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], config: TrainConfig, scene_scale: float, backend: str
    ):
        self.config, self.backend = config, backend
        self.device = "cuda" if backend == "cuda" else "cpu"
        self.color_base: Tensor | None = None  # [V, 3, 4]
        self.set_params(tensors)
        self.strategy = densify.build(config, backend)
        self.strategy.check_sanity(self.params, self.optimizers)
        self.strategy_state: dict[str, Any] = (
            self.strategy.initialize_state(scene_scale=scene_scale)
            if config.strategy.kind == "default"
            else self.strategy.initialize_state()
        )

    def set_params(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from copies of these tensors, with new optimisers.

        Where opacities are halved at times, and moments forgotten, Adam corrects no bias: steps
        are as long at the start as after each halving.
        """
        self.params = {
            name: torch.nn.Parameter(value.detach().to(self.device).clone().contiguous())
            for name, value in tensors.items()
        }
        # eps is that of gsplat's trainer.
        self.optimizers = {
            name: torch.optim.Adam(
                [param], lr=getattr(self.config, _LR[name]), eps=1e-15, fused=True
            )
            for name, param in self.params.items()
        }
        for name, param in self.params.items() if self.config.halves else ():
            self.optimizers[name].state[param] = {
                "step": torch.full((), _LATE, device=self.device),
                "exp_avg": torch.zeros_like(param),
                "exp_avg_sq": torch.zeros_like(param),
            }

    def reset_poses(self, count: int, bases: Tensor | None = None) -> None:
        """Corrections of zero for so many views, with a new optimiser; `bases` as `pose_rates`."""
        self.pose_bases = None if bases is None else bases.to(self.device)
        self.corrections = torch.zeros(count, 9, device=self.device, requires_grad=True)
        self.pose_optimizer = torch.optim.Adam(
            [self.corrections],
            lr=self.config.pose_opt_lr,
            weight_decay=self.config.pose_opt_reg,
            fused=self.backend == "cuda",
        )

    def reset_colors(self, base: Tensor) -> None:
        """Offsets of zero from these maps [V, 3, 4] of colours, with a new optimiser."""
        self.color_base = base.to(self.device)
        self.color_offsets = torch.zeros_like(self.color_base, requires_grad=True)
        self.color_optimizer = torch.optim.Adam(
            [self.color_offsets], lr=self.config.color_opt_lr, fused=self.backend == "cuda"
        )

    @property
    def maps_colors(self) -> bool:
        """Whether renders are taken through the maps of their views' colours."""
        return self.color_base is not None

    def color_maps(self) -> Tensor:
        """Maps [V, 3, 4] of the views' colours."""
        assert self.color_base is not None, "no colours are mapped"
        if not self.config.color_opt:
            return self.color_base
        return self.color_base + color.balanced(self.color_offsets)

    def pose_corrections(self) -> Tensor:
        """Corrections [V, 9] as `splat.poses` applies them."""
        if self.pose_bases is None:
            return self.corrections
        return (self.pose_bases * self.corrections[:, None]).sum(-1)

    def join_harmonics(self) -> Tensor:
        """Make sh0 and shN slices of one new tensor [N, K, 3], which is returned.

        gsplat's kernel reads one tensor; a copy at every step would cost more than the kernel.
        """
        sh0, rest = self.params["sh0"], self.params["shN"]
        harmonics = torch.cat([sh0.detach(), rest.detach()], dim=1)
        sh0.data, rest.data = harmonics[:, :1], harmonics[:, 1:]
        return harmonics

    def finite(self) -> Tensor:
        """Which Gaussians are finite, [N]."""
        flat = [param.detach().reshape(len(param), -1) for param in self.params.values()]
        return torch.isfinite(torch.cat(flat, dim=1)).all(1)

    @property
    def limited(self) -> bool:
        """Whether `max_gaussians` has held the growth."""
        return getattr(self.strategy, "announced", False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on, random numbers included."""
        strategy = {k: v for k, v in self.strategy_state.items() if torch.is_tensor(v)}
        colors: dict[str, Any] = {}
        if self.config.color_opt:
            colors["color_offsets"] = self.color_offsets.detach()
            colors["color_optimizer"] = self.color_optimizer.state_dict()
        return colors | {
            "params": {name: param.detach() for name, param in self.params.items()},
            "optimizers": {name: adam.state_dict() for name, adam in self.optimizers.items()},
            "strategy": strategy,
            "limited": self.limited,
            "corrections": self.corrections.detach(),
            "pose_optimizer": self.pose_optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if self.backend == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.set_params(state["params"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.strategy_state.update({k: v.to(self.device) for k, v in state["strategy"].items()})
        if state.get("limited"):  # which states of older versions lack
            self.strategy.announced = True
        with torch.no_grad():
            self.corrections.copy_(state["corrections"])
        self.pose_optimizer.load_state_dict(state["pose_optimizer"])
        if self.config.color_opt:
            with torch.no_grad():
                self.color_offsets.copy_(state["color_offsets"])
            self.color_optimizer.load_state_dict(state["color_optimizer"])
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"])
