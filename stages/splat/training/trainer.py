"""One training run: Gaussians, optimisers, strategy and poses, a step at a time.

The world is normalised as gsplat's example trainer does it; all tensors live in that frame. What
changes from step to step is in `state_dict`, so that a run can stop anywhere and go on as if it
had not: the order of views and every learning rate follow from the step number alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.files import text_hash
from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import Sim3, fit_sim3, fit_sim3_from_cameras, normalisation
from stages.splat import poses
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import rasterization
from stages.splat.training import densify, initial
from stages.splat.training.losses import FUSED, photometric

NAMES = {"scales": "log_scales", "opacities": "opacity_logits"}
_LR = {
    "means": "means_lr", "scales": "scales_lr", "quats": "quats_lr",
    "opacities": "opacities_lr", "sh0": "sh0_lr", "shN": "shN_lr",
}  # fmt: skip
# Gaussians that are not finite are not drawn, so that a few do no harm.
_MOST_LOST = 0.01
_FAR = 100.0  # camera distances
# Corrections that move cameras against each other by more of their distances hide the scale.
_MOST_MOVED = 0.3


@dataclass(frozen=True, eq=False)
class TrainView:
    """One photograph to train on or to measure."""

    camera: Camera  # world frame
    image: Tensor  # [H, W, 3]
    mask: Tensor | None = None  # [H, W] bool, pixels to count
    weight: float = 1.0  # of its photometric loss


class Trainer:
    """Trains one set of Gaussians on views that share one moment."""

    def __init__(
        self,
        views: Sequence[TrainView],
        points: Array,  # [P, 3], world frame
        colors: np.ndarray,  # [P, 3] uint8
        config: TrainConfig,
        backend: str,
        warm: Gaussians | None = None,
    ):
        self.config, self.backend = config, backend
        self.device = "cuda" if backend == "cuda" else "cpu"
        norm_from_world, scale = normalisation([view.camera for view in views], points)
        if warm is not None:
            norm_from_world = warm.world_from_norm.inverse()
        self.world_from_norm: Sim3 = norm_from_world.inverse()
        self.scene_scale = 1.1 * config.global_scale * scale
        self.loop = None
        self.set_views(views)
        self.background = torch.tensor([config.background], device=self.device)
        torch.manual_seed(config.seed)
        if warm is None:
            placed = norm_from_world.apply(points) if len(points) else points
            start, self.origin = initial.parameters(placed, colors, self.scene_scale, config)
            self.start_degree = 0
        else:
            start = {name: getattr(warm, NAMES.get(name, name)) for name in _LR}
            self.origin = f"{len(warm)} Gaussians that were trained before"
            self.start_degree = warm.sh_degree
        self._set_parameters(start)
        self.strategy = densify.build(config, backend)
        self.strategy.check_sanity(self.params, self.optimizers)
        self.strategy_state: dict[str, Any] = (
            self.strategy.initialize_state(scene_scale=self.scene_scale)
            if config.strategy.kind == "default"
            else self.strategy.initialize_state()
        )
        if backend == "cuda" and config.execution == "graph" and FUSED:
            from stages.splat.training.graph_steps import Loop

            self.loop = Loop(self)
            self.loop.set_views()

    def set_views(self, views: Sequence[TrainView]) -> None:
        """Train on these views from now on; corrections of poses begin anew."""
        self._settle()
        self._order: tuple[int, Array] | None = None  # of the views, in one epoch
        norm_from_world = self.world_from_norm.inverse()
        self.cameras = [norm_from_world.apply_camera(view.camera) for view in views]
        self.images = [view.image.to(self.device) for view in views]
        self.masks = [None if v.mask is None else v.mask.to(self.device) for v in views]
        self.weights = [view.weight for view in views]
        self.viewmats = self._stack([camera.cam_from_world for camera in self.cameras])
        self.Ks = self._stack([camera.K for camera in self.cameras])
        self.corrections = torch.zeros(len(views), 9, device=self.device, requires_grad=True)
        self.pose_optimizer = torch.optim.Adam(
            [self.corrections],
            lr=self.config.pose_opt_lr,
            weight_decay=self.config.pose_opt_reg,
            fused=self.backend == "cuda",
        )
        if self.loop is not None:
            self.loop.set_views()

    def step(self, step: int, index: int | None = None) -> tuple[Tensor, int]:
        """One optimisation step on one view, `view_of(step)` if none is given.

        Returns its loss and the view's index. On a GPU neither waits: the loss is a tensor that
        the next step overwrites.
        """
        config = self.config
        if index is None:
            index = self.view_of(step)
        if self.loop is not None:
            return self.loop.step(step, index), index
        means_lr = self.means_lr(step)
        self.optimizers["means"].param_groups[0]["lr"] = means_lr
        self.pose_optimizer.param_groups[0]["lr"] = self.poses_lr(step)
        image, info = self.render(
            self.viewmat(index), self.Ks[index], self.cameras[index],
            self.active_degree(step),
            background=torch.rand(1, 3, device=self.device) if config.random_bkgd else None,
        )  # fmt: skip
        self.strategy.step_pre_backward(
            self.params, self.optimizers, self.strategy_state, step, info
        )
        loss = photometric(image, self.images[index], config.ssim_lambda, self.masks[index])
        loss = self.regularised(self.weights[index] * loss)
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if config.pose_opt:
            self.pose_optimizer.step()
            self.pose_optimizer.zero_grad(set_to_none=True)
        densify.after_backward(
            self.strategy, self.params, self.optimizers, self.strategy_state, step, info, means_lr
        )
        return loss.detach(), index

    def means_lr(self, step: int) -> float:
        """Learning rate of the means at a step, in the normalised frame."""
        decay = 0.01 ** (step / self.config.steps)
        return self.config.means_lr * self.scene_scale * decay

    def poses_lr(self, step: int) -> float:
        """Learning rate of the corrections of poses at a step."""
        return self.config.pose_opt_lr * 0.01 ** (step / self.config.steps)

    def regularised(self, loss: Tensor) -> Tensor:
        """A loss with what keeps Gaussians faint and small."""
        if self.config.opacity_reg:
            loss = loss + self.config.opacity_reg * torch.sigmoid(self.params["opacities"]).mean()
        if self.config.scale_reg:
            loss = loss + self.config.scale_reg * torch.exp(self.params["scales"]).mean()
        return loss

    def active_degree(self, step: int) -> int:
        """Degree of the harmonics that act at a step; it rises from where the Gaussians began."""
        risen = self.start_degree + step // self.config.scaled(self.config.sh_degree_interval)
        return min(risen, self.config.sh_degree)

    def view_of(self, step: int) -> int:
        """View of a step: every view once an epoch, in an order of the epoch's own."""
        epoch, place = divmod(step, len(self.images))
        if self._order is None or self._order[0] != epoch:
            random = np.random.default_rng([self.config.seed, epoch])
            self._order = epoch, random.permutation(len(self.images))
        return int(self._order[1][place])

    def viewmat(self, index: int) -> Tensor:
        """cam_from_norm [4, 4] of a training view, corrected when poses are optimised."""
        if not self.config.pose_opt:
            return self.viewmats[index]
        return poses.corrected(self.viewmats[index], self.corrections[index])

    def render(
        self,
        viewmat: Tensor,
        K: Tensor,
        camera: Camera,
        sh_degree: int,
        background: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Image [H, W, 3] and the rasteriser's info."""
        params, config = self.params, self.config
        image, _, info = rasterization(
            params["means"], params["quats"], torch.exp(params["scales"]),
            torch.sigmoid(params["opacities"]), torch.cat([params["sh0"], params["shN"]], 1),
            viewmat[None], K[None], camera.width, camera.height,
            backend=self.backend, sh_degree=sh_degree,
            near_plane=config.near_plane, far_plane=config.far_plane,
            backgrounds=self.background if background is None else background,
            absgrad=config.strategy.absgrad,
            rasterize_mode="antialiased" if config.antialiased else "classic",
        )  # fmt: skip
        return image[0], info

    def gaussians(self, step: int) -> Gaussians:
        """What has been learnt after `step` steps, without Gaussians that are not finite."""
        self._settle()
        kept, config = self._finite(), self.config
        tensors = {NAMES.get(n, n): p.detach()[kept].clone() for n, p in self.params.items()}
        return Gaussians(
            **tensors,
            world_from_norm=self.world_from_norm.compose(self._given_from_learnt()),
            antialiased=config.antialiased,
            metadata={
                "step": step,
                "background": list(config.background),
                "near_plane": config.near_plane,
                "far_plane": config.far_plane,
                "params": text_hash(config.fingerprint(self.backend))[:16],
            },
        )

    def learnt_cameras(self) -> list[Camera]:
        """Training cameras in the world frame, with their learnt corrections."""
        self._settle()
        world_from_learnt = self.world_from_norm.compose(self._given_from_learnt())
        cameras = self._corrected_cameras()
        if np.linalg.norm(world_from_learnt.translation) > _FAR * world_from_learnt.scale:
            # So far from the origin, what float32's rotations lack would move the cameras.
            cameras = [one.moved(poses.orthonormal(one.cam_from_world)) for one in cameras]
        return [world_from_learnt.apply_camera(camera) for camera in cameras]

    def _corrected_cameras(self) -> list[Camera]:
        with torch.no_grad():
            poses = [self.viewmat(k).double().cpu().numpy() for k in range(len(self.cameras))]
        return [camera.moved(pose) for camera, pose in zip(self.cameras, poses, strict=True)]

    def _given_from_learnt(self) -> Sim3:
        """Takes back the motion that all corrections share, in the normalised frame.

        Photographs say nothing of a motion of the whole scene together with its cameras, so
        training lets it drift; a camera that was not trained on would be left behind. On the
        demo scenes that cost 2 to 3 dB at held-out cameras.
        """
        if not self.config.pose_opt:
            return Sim3.identity()
        learnt = self._corrected_cameras()
        fitted, residual = fit_sim3_from_cameras(learnt, self.cameras)
        if residual["centre_rmse_relative"] <= _MOST_MOVED:
            return fitted
        # Cameras that stand hardly apart, as of a panorama, say nothing of the scale.
        centres = [np.stack([one.centre for one in group]) for group in (learnt, self.cameras)]
        return fit_sim3(*centres, fitted.rotation, 1.0)

    def _finite(self) -> Tensor:
        """Which Gaussians are finite, [N]."""
        flat = [param.detach().reshape(len(param), -1) for param in self.params.values()]
        return torch.isfinite(torch.cat(flat, dim=1)).all(1)

    def check_finite(self, loss: float, step: int) -> None:
        """Raise UserError when training has diverged."""
        self._settle()
        lost = float((~self._finite()).float().mean())
        if np.isfinite(loss) and lost <= _MOST_LOST:
            return
        what = f"the loss is {loss}" if lost == 0 else f"{lost:.0%} of the Gaussians are not finite"
        raise UserError(
            "train", f"{what} at step {step}", expected="a finite loss and finite Gaussians",
            fix="lower train.means_lr or train.scales_lr; the last good checkpoint is kept",
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        self._settle()
        strategy = {k: v for k, v in self.strategy_state.items() if torch.is_tensor(v)}
        return {
            "params": {name: param.detach() for name, param in self.params.items()},
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "strategy": strategy,
            "corrections": self.corrections.detach(),
            "pose_optimizer": self.pose_optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if self.backend == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._settle()
        self._set_parameters(state["params"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.strategy_state.update({k: v.to(self.device) for k, v in state["strategy"].items()})
        with torch.no_grad():
            self.corrections.copy_(state["corrections"])
        self.pose_optimizer.load_state_dict(state["pose_optimizer"])
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"])
        if self.loop is not None:
            self.loop.set_views()

    def value(self, loss: Tensor) -> float:
        """A loss that `step` gave, as a number: waits for the steps under way."""
        self._settle()
        return float(loss)

    def _settle(self) -> None:
        """Make sure that every step so far has been taken."""
        if self.loop is not None:
            self.loop.settle()

    def _set_parameters(self, tensors: dict[str, Tensor]) -> None:
        self.params = {
            name: torch.nn.Parameter(value.detach().to(self.device).clone().contiguous())
            for name, value in tensors.items()
        }
        # gsplat's strategies edit one optimiser a parameter; eps is its trainer's.
        self.optimizers = {
            name: torch.optim.Adam(
                [param], lr=getattr(self.config, _LR[name]), eps=1e-15, fused=True
            )
            for name, param in self.params.items()
        }

    def _stack(self, matrices: list[Array]) -> Tensor:
        return torch.tensor(np.stack(matrices), dtype=torch.float32, device=self.device)
