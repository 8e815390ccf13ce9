"""One training: a set of Gaussians on the views of one timestamp, a step at a time.

The world is normalised as gsplat's example trainer does it; all tensors live in that frame. What
steps change is in `TrainState`, so that a run can stop anywhere and go on as if it had not: the
order of views and every learning rate follow from the step number alone.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.files import text_hash
from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import Sim3, fit_sim3, fit_sim3_from_cameras, normalisation
from stages.splat import color, poses
from stages.splat.config import TrainConfig
from stages.splat.gaussians import COLOR, Gaussians
from stages.splat.raster import rasterization
from stages.splat.training import densify, initial
from stages.splat.training.losses import FUSED, photometric, regularised
from stages.splat.training.pose_rates import PoseRates, bases
from stages.splat.training.schedule import Schedule
from stages.splat.training.state import PARAMS, TrainState
from stages.splat.training.view_set import TrainView, ViewSet

NAMES = {"scales": "log_scales", "opacities": "opacity_logits"}
# Gaussians that are not finite are not rendered, so a few do no harm.
_MAX_LOST = 0.01
_FAR = 100.0  # camera distances
# Corrections that move cameras against each other by more of their distances hide the scale.
_MAX_MOVED = 0.3


class Trainer:
    """Trains one set of Gaussians on views that share one timestamp."""

    def __init__(
        self,
        views: Sequence[TrainView],
        points: Array,  # [P, 3], world frame
        colors: np.ndarray,  # [P, 3] uint8
        config: TrainConfig,
        backend: str,
        warm: Gaussians | None = None,
    ):
        """Start from sparse points with colours, or from the Gaussians `warm` in their frame."""
        _check_colors(config, views)
        self.pose_rates = PoseRates.of(config, views)
        self.config = config = self.pose_rates.applied()  # without `auto`
        self.backend = backend
        self.device = "cuda" if backend == "cuda" else "cpu"
        norm_from_world, scale = normalisation([view.camera for view in views], points)
        if warm is not None:
            norm_from_world = warm.world_from_norm.inverse()
        self.world_from_norm: Sim3 = norm_from_world.inverse()
        self.scene_scale = 1.1 * config.global_scale * scale
        self.background = torch.tensor([config.background], device=self.device)
        torch.manual_seed(config.seed)
        if warm is None:
            placed = norm_from_world.apply(points) if len(points) else points
            start, self.origin = initial.parameters(placed, colors, self.scene_scale, config)
        else:
            start = {name: getattr(warm, NAMES.get(name, name)) for name in PARAMS}
            self.origin = f"{len(warm)} Gaussians that were trained before"
        self.schedule = Schedule(config, self.scene_scale, 0 if warm is None else warm.sh_degree)
        self.state = TrainState(start, config, self.scene_scale, backend)
        self.graphs = None
        # Of the Gaussians that training starts from.
        self.start_colors: color.ColorTable | None = None if warm is None else warm.colors
        self.set_views(views, are_own=True)
        if backend == "cuda" and config.execution == "graph" and FUSED:
            self.use_graphs()

    def fingerprint(self) -> str:
        """Text that is equal for two trainings on equal inputs when one can resume the other."""
        return f"{self.config.fingerprint(self.backend)} {self.pose_rates.unit}"

    def use_graphs(self) -> None:
        """Take steps as recorded CUDA graphs from now on."""
        from stages.splat.training.graph_steps import GraphSteps

        self.graphs = GraphSteps(
            self.state, self.views, self.schedule, self.background, self.config
        )

    def set_views(self, views: Sequence[TrainView], *, are_own: bool = False) -> None:
        """Train on these views from now on; corrections of poses begin anew.

        With `are_own` their cameras are those of the Gaussians that training starts from, if by
        other poses.
        """
        self._settle()
        self._order: tuple[int, Array] | None = None  # of the views, in one epoch
        self.views = ViewSet.of(views, self.world_from_norm.inverse(), self.device)
        covariances = [view.pose_covariance for view in views if view.pose_covariance is not None]
        is_scaled = len(covariances) == len(views)
        scale = 1 / self.world_from_norm.scale
        self.state.reset_poses(len(views), bases(covariances, scale) if is_scaled else None)
        if self.config.color_opt or self.start_colors is not None:
            cameras = [view.camera for view in views]
            self.state.reset_colors(self._starting_maps(cameras, are_own=are_own))
        if self.graphs is not None:
            self.graphs.set_views(self.views)

    def _starting_maps(self, cameras: Sequence[Camera], *, are_own: bool) -> Tensor:
        """Maps [V, 3, 4] of the colours of cameras of the world frame before they are learnt."""
        if self.start_colors is None:
            return color.identity(len(cameras), "cpu")
        find = color.map_of if are_own else color.map_at
        maps = [find(self.start_colors, camera) for camera in cameras]
        return torch.tensor(np.stack(maps), dtype=torch.float32)

    def step(self, step: int, index: int | None = None) -> tuple[Tensor, int]:
        """One optimisation step on one view, `view_of(step)` if none is given.

        Returns its loss [] and the view's index. On a GPU neither waits: the loss is a tensor that
        the next step overwrites.
        """
        config, state, views = self.config, self.state, self.views
        if index is None:
            index = self.view_of(step)
        means_lr, info = self.schedule.means_lr(step), {}
        if self.graphs is not None:
            # All that the other branch does, as one CUDA graph.
            loss = self.graphs.step(step, index)
        else:
            state.optimizers["means"].param_groups[0]["lr"] = means_lr
            state.pose_optimizer.param_groups[0]["lr"] = self.schedule.poses_lr(step)
            image, info = self.render(
                self.viewmat(index),
                views.Ks[index],
                views.cameras[index],
                self.schedule.sh_degree(step),
                background=torch.rand(1, 3, device=self.device) if config.random_bkgd else None,
            )
            state.strategy.step_pre_backward(
                state.params, state.optimizers, state.strategy_state, step, info
            )
            if state.maps_colors:
                image = color.applied(image, state.color_maps()[index])
            loss = photometric(image, views.images[index], config.ssim_lambda, views.masks[index])
            loss = regularised(views.weights[index] * loss, state.params, config)
            if config.color_opt:
                loss = loss + config.color_opt_reg * color.distance(state.color_offsets)
            loss.backward()
            for optimizer in state.optimizers.values():
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if config.pose_opt:
                state.pose_optimizer.step()
                state.pose_optimizer.zero_grad(set_to_none=True)
            if config.color_opt:
                state.color_optimizer.param_groups[0]["lr"] = self.schedule.colors_lr(step)
                state.color_optimizer.step()
                state.color_optimizer.zero_grad(set_to_none=True)
            if densify.collects_at(state.strategy, step):
                state.strategy.collect(state.params, state.strategy_state, info)
        self._refine(step, info, means_lr)
        return loss.detach(), index

    def _refine(self, step: int, info: dict[str, Any], means_lr: float) -> None:
        """Duplicate, split, prune and reset Gaussians when it is time, by the strategy."""
        state = self.state
        if densify.acts_at(state.strategy, step):
            self._settle()
        replaces = self.graphs is not None and densify.replaces_at(state.strategy, step)
        with self.graphs.refinement() if replaces else nullcontext():
            densify.refine(
                state.strategy,
                state.params,
                state.optimizers,
                state.strategy_state,
                step,
                info,
                means_lr,
            )
        if not len(state.params["means"]):
            raise UserError(
                "train.strategy",
                f"it removed all Gaussians at step {step + 1}",
                expected="some that the images show",
                fix="lower train.strategy.prune_opa, raise train.strategy.prune_scale3d, or start "
                "from more: train.init_num_pts, train.max_gaussians",
            )

    def view_of(self, step: int) -> int:
        """View of a step: every view once an epoch, in an order of the epoch's own."""
        epoch, place = divmod(step, len(self.views))
        if self._order is None or self._order[0] != epoch:
            random = np.random.default_rng([self.config.seed, epoch])
            self._order = epoch, random.permutation(len(self.views))
        return int(self._order[1][place])

    def viewmat(self, index: int) -> Tensor:
        """cam_from_norm [4, 4] of a training view, corrected when poses are optimised."""
        if not self.config.pose_opt:
            return self.views.viewmats[index]
        return poses.corrected(self.views.viewmats[index], self.state.pose_corrections()[index])

    def render(
        self,
        viewmat: Tensor,
        K: Tensor,
        camera: Camera,
        sh_degree: int,
        background: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Render the parameters as they are now.

        Args:
            viewmat: cam_from_norm [4, 4].
            K: intrinsics [3, 3], px.
            camera: the camera whose width and height the image has.
            sh_degree: degree of the harmonics to use.
            background: colour [1, 3]; None for `train.background`.

        Returns:
            The image [H, W, 3] and the rasteriser's info.
        """
        params, config = self.state.params, self.config
        image, _, info = rasterization(
            params["means"],
            params["quats"],
            torch.exp(params["scales"]),
            torch.sigmoid(params["opacities"]),
            torch.cat([params["sh0"], params["shN"]], 1),
            viewmat[None],
            K[None],
            camera.width,
            camera.height,
            backend=self.backend,
            sh_degree=sh_degree,
            near_plane=config.near_plane,
            far_plane=config.far_plane,
            backgrounds=self.background if background is None else background,
            absgrad=config.strategy.absgrad,
            rasterize_mode="antialiased" if config.antialiased else "classic",
        )
        return image[0], info

    def gaussians(self, step: int) -> Gaussians:
        """The Gaussians after `step` steps, without those that are not finite."""
        world_from_learnt, cameras = self.learnt()
        kept, config = self.state.finite(), self.config
        tensors = {NAMES.get(n, n): p.detach()[kept].clone() for n, p in self.state.params.items()}
        return Gaussians(
            **tensors,
            world_from_norm=world_from_learnt,
            antialiased=config.antialiased,
            metadata={
                "step": step,
                "background": list(config.background),
                "near_plane": config.near_plane,
                "far_plane": config.far_plane,
                "params": text_hash(config.name_in_files(self.backend))[:16],
                **({COLOR: self._colors(cameras)} if self.state.maps_colors else {}),
            },
        )

    def _colors(self, learnt: Sequence[Camera]) -> color.ColorTable | None:
        """Maps by learnt camera: the learnt ones, else those that training started from."""
        if not self.config.color_opt:
            return self.start_colors
        return color.table(learnt, self.state.color_maps())

    def learnt(self) -> tuple[Sim3, list[Camera]]:
        """From the frame of the Gaussians, as they are now, to the world; and `learnt_cameras`."""
        self._settle()
        cameras = self._corrected_cameras()
        world_from_learnt = self.world_from_norm.compose(self._given_from_learnt(cameras))
        if np.linalg.norm(world_from_learnt.translation) > _FAR * world_from_learnt.scale:
            # So far from the origin, the rounding of float32 rotations would move the cameras.
            cameras = [one.moved(poses.orthonormal(one.cam_from_world)) for one in cameras]
        return world_from_learnt, [world_from_learnt.apply_camera(camera) for camera in cameras]

    def learnt_cameras(self) -> list[Camera]:
        """Training cameras in the world frame, with their learnt corrections."""
        return self.learnt()[1]

    def _corrected_cameras(self) -> list[Camera]:
        with torch.no_grad():
            poses = [self.viewmat(k).double().cpu().numpy() for k in range(len(self.views))]
        return [camera.moved(pose) for camera, pose in zip(self.views.cameras, poses, strict=True)]

    def _given_from_learnt(self, learnt: Sequence[Camera]) -> Sim3:
        """Takes back the motion that all corrections share, in the normalised frame.

        Images do not determine a motion of the whole scene together with its cameras, so training
        lets it drift; a camera that was not trained on would be left behind. On the demo scenes
        that cost 2 to 3 dB at held-out cameras.
        """
        if not self.config.pose_opt:
            return Sim3.identity()
        given = self.views.cameras
        fitted, residual = fit_sim3_from_cameras(learnt, given)
        if residual["centre_rmse_relative"] <= _MAX_MOVED:
            return fitted
        # Cameras that hardly stand apart, as of a panorama, do not determine the scale.
        centres = [np.stack([one.centre for one in group]) for group in (learnt, given)]
        return fit_sim3(*centres, fitted.rotation, 1.0)

    def check_finite(self, loss: float, step: int) -> None:
        """Raise UserError when training has diverged."""
        self._settle()
        lost = float((~self.state.finite()).float().mean())
        if np.isfinite(loss) and lost <= _MAX_LOST:
            return
        what = f"the loss is {loss}" if lost == 0 else f"{lost:.0%} of the Gaussians are not finite"
        raise UserError(
            "train",
            f"{what} at step {step}",
            expected="a finite loss and finite Gaussians",
            fix="lower train.means_lr or train.scales_lr; the last good checkpoint is kept",
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        self._settle()
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._settle()
        self.state.load_state_dict(state)
        if self.graphs is not None:
            self.graphs.set_views(self.views)

    def value(self, loss: Tensor) -> float:
        """A loss that `step` returned, as a number: waits for the steps under way."""
        self._settle()
        return float(loss)

    def _settle(self) -> None:
        """Make sure that every step so far has been taken."""
        if self.graphs is not None:
            self.graphs.settle()


def _check_colors(config: TrainConfig, views: Sequence[TrainView]) -> None:
    """Raise UserError where colours of cameras cannot be learnt."""
    if config.color_opt and len(views) < color.NEIGHBOURS:
        raise UserError(
            "train.color_opt",
            f"{len(views)} view to train on",
            expected="two or more, because colours are learnt against those of other cameras",
            fix="set train.color_opt: false",
        )
