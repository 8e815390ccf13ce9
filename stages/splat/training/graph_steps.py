"""A trainer's steps on a GPU as captured graphs: the host starts each by one call, and never waits.

A step is the recipe's: draw, loss, gradients, Adam, statistics. It is captured anew whenever the
tensors change that it works on, which is when Gaussians are added or removed. Between two such
steps the host learns nothing. What is drawn needs room that is set beforehand; a step that turns
out to need more changes nothing, and is repeated with enough before anyone looks at the result.
"""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stages.splat.gpu.adam import accumulate, descend
from stages.splat.gpu.graphs import Recorder, wait
from stages.splat.gpu.lock import pass_on
from stages.splat.gpu.poses import Corrected
from stages.splat.gpu.rasterize import Drawn, Viewpoint, draw, meetings
from stages.splat.training import densify
from stages.splat.training.losses import photometric

if TYPE_CHECKING:
    from stages.splat.training.trainer import Trainer

# Steps that may be under way; their views and rates wait in pinned memory.
_MOST_PENDING = 1024
# Steps after which another thread that shares the GPU may have the turn: the device has to have
# work of several at any time, and the first to start a thousand steps would fill its queue alone.
_IN_A_ROW = 16
# Room over what the last steps needed.
_SPARE = 1.3
_FADING = 0.95
_GRAIN = 65_536
# Each size of pictures has a graph of its own, which takes 6 ms to record and saves some 3 ms a
# step. Of the 100 steps between two refinements more sizes than this leave too few each.
_MOST_SIZES = 32

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class _Pending:
    """One step under way."""

    step: int
    index: int


@dataclass(frozen=True, eq=False)
class _Group:
    """All views of one size."""

    rows: dict[int, int]  # place in the stacks by the view's index
    images: Tensor  # [V, H, W, 3]
    masks: Tensor | None  # [V, H, W] bool


class Loop:
    """Takes the steps of one trainer, on the stream that is current."""

    def __init__(self, trainer: "Trainer"):
        # Not a cycle: what a finished training leaves must not be collected during a capture.
        self.trainer: Trainer = weakref.proxy(trainer)
        device = trainer.device
        # Of the step under way: view, its place among those of its size, the step's slot, and two
        # rates (of the means and of the poses) in one number.
        self._told = torch.zeros(4, dtype=torch.int64, device=device)
        self._index, self._row, self._slot = (self._told[k : k + 1] for k in range(3))
        self.means_lr, self.poses_lr = self._told[3:].view(torch.float32).unbind()
        self._waiting = torch.zeros(
            _MOST_PENDING, 4, dtype=torch.int64, pin_memory=device == "cuda"
        )
        self._integers = self._waiting.numpy()
        self._floats = self._integers.view(np.float32)
        # Of the steps under way, which had room; and of a step that always has.
        self._taken = torch.zeros(_MOST_PENDING, device=device)
        self._whole = torch.ones((), device=device)
        self._most = torch.zeros((), dtype=torch.int32, device=device)
        self._loss = torch.zeros((), device=device)
        self._recorder = Recorder()
        self._graphs: dict[tuple[Size, int, bool], torch.cuda.CUDAGraph] = {}
        self._pending: list[_Pending] = []
        self._groups: dict[Size, _Group] = {}

    def set_views(self) -> None:
        """Take the trainer's views; to be called when they change."""
        trainer = self.trainer
        self.settle()
        self._forget()
        sizes: dict[Size, list[int]] = {}
        for index, camera in enumerate(trainer.cameras):
            sizes.setdefault((camera.height, camera.width), []).append(index)
        self._groups = {size: self._group(indices) for size, indices in sizes.items()}
        self._weights = None
        if any(weight != 1 for weight in trainer.weights):
            self._weights = torch.tensor(trainer.weights, device=trainer.device)
        rotations, shifts = trainer.viewmats[:, :3, :3], trainer.viewmats[:, :3, 3:]
        self._eyes = -(rotations.transpose(1, 2) @ shifts)[..., 0]
        self._room = self._needed()
        # The first step of each size is taken by calls, for what is built at its first use.
        self._unmet = set(self._groups)

    def step(self, step: int, index: int) -> Tensor:
        """One step; the loss [] is there when the device gets to it."""
        trainer = self.trainer
        if len(self._pending) == _MOST_PENDING:
            self.settle()
        camera = trainer.cameras[index]
        size = camera.height, camera.width
        self._tell(step, index, self._groups[size].rows[index])
        if size in self._unmet or len(self._groups) > _MOST_SIZES:
            self._unmet.discard(size)
            self._take(size, step, None)
        else:
            collects = self._collects(step)
            key = size, trainer.active_degree(step), collects
            if key not in self._graphs:
                self._graphs[key] = self._captured(size, step)
            self._graphs[key].replay()
            self._pending.append(_Pending(step, index))
            if len(self._pending) % _IN_A_ROW == 0:
                pass_on()
        self._after(step)
        return self._loss

    def settle(self) -> None:
        """Wait for the steps under way, and repeat those that had too little room."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        wait()
        taken, most = self._taken[: len(pending)].tolist(), int(self._most)
        # Few steps may not have met the view that needs most.
        self._room = max(most, _FADING * self._room)
        self._most.zero_()
        if all(taken):
            return
        self._graphs.clear()
        for one, whole in zip(pending, taken, strict=True):
            if not whole:
                camera = self.trainer.cameras[one.index]
                size = camera.height, camera.width
                self._tell(one.step, one.index, self._groups[size].rows[one.index])
                self._take(size, one.step, None)

    def _after(self, step: int) -> None:
        """What a strategy does after a step; it works on the host's side."""
        trainer = self.trainer
        strategy, acts = trainer.strategy, densify.acts_at(trainer.strategy, step)
        if not acts and isinstance(strategy, densify.CappedStrategy):
            return
        state = (trainer.params, trainer.optimizers, trainer.strategy_state)
        before = dict(trainer.params)
        if acts:
            self.settle()
        if isinstance(strategy, densify.CappedStrategy):
            strategy.refine(*state, step)
        else:
            strategy.step_post_backward(*state, step, {}, lr=trainer.means_lr(step))
        count = len(before["means"])
        if any(trainer.params[name] is not param for name, param in before.items()):
            self._room *= max(1.0, len(trainer.params["means"]) / max(count, 1))
            self._forget()

    def _forget(self) -> None:
        """Drop the graphs; take parameters that are new, and have changing rates on the device."""
        trainer = self.trainer
        self._graphs.clear()
        trainer.optimizers["means"].param_groups[0]["lr"] = self.means_lr
        trainer.pose_optimizer.param_groups[0]["lr"] = self.poses_lr
        # gsplat draws from one tensor: the two become parts of it.
        sh0, rest = trainer.params["sh0"], trainer.params["shN"]
        self._harmonics = torch.cat([sh0.detach(), rest.detach()], dim=1)
        sh0.data, rest.data = self._harmonics[:, :1], self._harmonics[:, 1:]

    def _collects(self, step: int) -> bool:
        strategy = self.trainer.strategy
        return isinstance(strategy, densify.CappedStrategy) and step < strategy.refine_stop_iter

    def _needed(self) -> float:
        """Places that the fullest picture takes, as long as poses are as given."""
        trainer, found = self.trainer, []
        for camera, *where in zip(
            trainer.cameras, trainer.viewmats[:, None], self._eyes[:, None], trainer.Ks[:, None],
            strict=True,
        ):  # fmt: skip
            view = Viewpoint(*where, camera.width, camera.height)
            found.append(meetings(trainer.params, view, trainer.config))
        return float(torch.stack(found).max())

    def _group(self, indices: list[int]) -> _Group:
        """Stack views of one size; the trainer's images become parts of the stack."""
        trainer = self.trainer
        images = torch.stack([trainer.images[index] for index in indices])
        for row, index in enumerate(indices):
            trainer.images[index] = images[row]
        masks = None
        if any(trainer.masks[index] is not None for index in indices):
            whole = torch.ones(images.shape[1:3], dtype=torch.bool, device=trainer.device)
            found = [trainer.masks[index] for index in indices]
            masks = torch.stack([whole if mask is None else mask for mask in found])
        return _Group({index: row for row, index in enumerate(indices)}, images, masks)

    def _tell(self, step: int, index: int, row: int) -> None:
        """Pass on what differs from step to step."""
        slot, trainer = len(self._pending), self.trainer
        self._integers[slot, :3] = index, row, slot
        self._floats[slot, 6:] = trainer.means_lr(step), trainer.poses_lr(step)
        self._told.copy_(self._waiting[slot], non_blocking=True)

    def _captured(self, size: Size, step: int) -> torch.cuda.CUDAGraph:
        room = (int(_SPARE * self._room) // _GRAIN + 1) * _GRAIN
        return self._recorder.record(lambda: self._take(size, step, room))

    def _take(self, size: Size, step: int, room: int | None) -> None:
        """One step on the device, of the view and the rates that it was told."""
        trainer, config = self.trainer, self.trainer.config
        harmonics = self._harmonics.detach().requires_grad_()
        loss, drawn = self._loss_of(size, harmonics, trainer.active_degree(step), room)
        names = ("means", "scales", "quats", "opacities")
        leaves = [trainer.params[name] for name in names]
        wanted = [*leaves, harmonics, drawn.means2d, *([trainer.corrections] * config.pose_opt)]
        *gradients, by_sh, by_place, by_pose = [
            *torch.autograd.grad(loss, wanted), *([None] * (not config.pose_opt))
        ]  # fmt: skip
        taken = self._whole
        if room is None:
            self._room = max(self._room, float(drawn.total))
        else:
            taken = (drawn.total <= room).float()
            torch.maximum(self._most, drawn.total, out=self._most)
            self._taken.index_copy_(0, self._slot, taken[None])
        optimizers = [trainer.optimizers[name] for name in (*names, "sh0", "shN")]
        gradients += [by_sh[:, :1], by_sh[:, 1:]]
        if config.pose_opt:
            optimizers.append(trainer.pose_optimizer)
            gradients.append(by_pose)
        with torch.no_grad():
            descend(optimizers, gradients, taken)
            self._loss.copy_(loss)
            if self._collects(step):
                by_place = drawn.means2d.absgrad if config.strategy.absgrad else by_place
                accumulate(trainer.strategy_state, by_place, drawn.radii, *reversed(size), taken)

    def _loss_of(
        self, size: Size, harmonics: Tensor, degree: int, room: int | None
    ) -> tuple[Tensor, Drawn]:
        """Loss [] of the view that was told, and its picture."""
        trainer, config, group = self.trainer, self.trainer.config, self._groups[size]
        if config.pose_opt:
            pose, eye = Corrected.apply(trainer.corrections, trainer.viewmats, self._index)
        else:
            pose = trainer.viewmats.index_select(0, self._index)
            eye = self._eyes.index_select(0, self._index)
        K = trainer.Ks.index_select(0, self._index)
        background = (
            torch.rand(1, 3, device=trainer.device) if config.random_bkgd else trainer.background
        )
        view = Viewpoint(pose, eye, K, size[1], size[0])
        drawn = draw(trainer.params, harmonics, view, degree, background, config, room)
        target = group.images.index_select(0, self._row)[0]
        mask = None if group.masks is None else group.masks.index_select(0, self._row)[0]
        loss = photometric(drawn.image, target, config.ssim_lambda, mask)
        if self._weights is not None:
            loss = loss * self._weights.index_select(0, self._index)[0]
        return trainer.regularised(loss), drawn
