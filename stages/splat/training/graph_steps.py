"""The steps of a training as CUDA graphs: the host starts each by one call and never waits.

A step is the recipe's: render, loss, gradients, Adam, statistics. It is recorded anew whenever the
tensors change that it works on, which is when Gaussians are added or removed. Between two such
steps the host learns nothing. Intersections of Gaussians and tiles need room that is set
beforehand; a step that turns out to need more changes nothing, and is repeated with enough before
its result is read.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.splat import color
from stages.splat.config import TrainConfig
from stages.splat.gpu.adam import accumulate, descend, descend_harmonics
from stages.splat.gpu.graphs import GraphRecorder, wait
from stages.splat.gpu.lock import others_wait, pass_gpu_lock
from stages.splat.gpu.poses import Corrected
from stages.splat.gpu.rasterize import Rendered, Viewpoint, count_isects, render, usable
from stages.splat.training import densify
from stages.splat.training.losses import photometric, regularised
from stages.splat.training.schedule import Schedule
from stages.splat.training.state import TrainState
from stages.splat.training.view_set import Shape, ViewSet

# Steps that may be under way; their views and rates wait in pinned memory.
_MAX_PENDING = 1024
# Steps after which another thread that shares the GPU may have the lock: the device has to have
# work of several at any time, and the first to start a thousand steps would fill its queue alone.
_STEPS_IN_A_ROW = 16
# Room for intersections: a margin over what the last steps needed, which is forgotten slowly, and
# its granularity.
_MARGIN = 1.3
_DECAY = 0.95
_GRAIN = 65_536
# Each shape of images has a graph of its own, which takes 6 ms to record and saves some 3 ms a
# step. Of the 100 steps between two refinements more shapes than this leave too few each.
_MAX_SHAPES = 32


@dataclass(frozen=True)
class _PendingStep:
    """One step under way."""

    step: int
    index: int


class GraphSteps:
    """Takes the steps of one training, on the stream that is current.

    It changes `state` alone, in place: parameters, moments of Adam, statistics. While it is in use,
    sh0 and shN are slices of one tensor (`join_harmonics`).
    """

    def __init__(
        self,
        state: TrainState,
        views: ViewSet,
        schedule: Schedule,
        background: Tensor,  # [1, 3]
        config: TrainConfig,
    ):
        self._state, self._schedule, self._config = state, schedule, usable(config)
        self._background = background
        device = state.device
        # Of the step under way: view, its row among those of its shape, the step's slot, and the
        # rates of the means, the poses and the colours, two in one number.
        self._inputs = torch.zeros(5, dtype=torch.int64, device=device)
        self._index, self._row, self._slot = (self._inputs[k : k + 1] for k in range(3))
        rates = self._inputs[3:].view(torch.float32)
        self._means_lr, self._poses_lr, self._colors_lr, _ = rates.unbind()
        self._pinned = torch.zeros(_MAX_PENDING, 5, dtype=torch.int64, pin_memory=device == "cuda")
        self._integers = self._pinned.numpy()
        self._floats = self._integers.view(np.float32)
        # Of the steps under way, which had room; and of a step that always has.
        self._taken = torch.zeros(_MAX_PENDING, device=device)
        self._always = torch.ones((), device=device)
        self._most_isects = torch.zeros((), dtype=torch.int32, device=device)
        self._loss = torch.zeros((), device=device)
        self._recorder = GraphRecorder()
        self._graphs: dict[tuple[Shape, int, bool], torch.cuda.CUDAGraph] = {}
        self._pending: list[_PendingStep] = []
        self._was_refined = True  # by the last refinement
        self.set_views(views)

    def set_views(self, views: ViewSet) -> None:
        """Train on these views, and on whatever parameters the state has now."""
        self.settle()
        self._views = views
        self._forget_graphs()
        self._weights = None
        if any(weight != 1 for weight in views.weights):
            self._weights = torch.tensor(views.weights, device=self._state.device)
        rotations, shifts = views.viewmats[:, :3, :3], views.viewmats[:, :3, 3:]
        self._eyes = -(rotations.transpose(1, 2) @ shifts)[..., 0]
        self._room = self._needed_room()
        # The first step of each shape is not recorded, because kernels are built at their first
        # use.
        self._new_shapes = set(views.stacks)

    def step(self, step: int, index: int) -> Tensor:
        """Everything of one step but the refinement; its loss [], which the host need not await."""
        if len(self._pending) == _MAX_PENDING:
            self.settle()
        shape = self._views.shape(index)
        self._send(step, index)
        if shape in self._new_shapes or len(self._views.stacks) > _MAX_SHAPES:
            self._new_shapes.discard(shape)
            self._take(shape, step, None)
        else:
            collects = densify.collects_at(self._state.strategy, step)
            key = shape, self._schedule.sh_degree(step), collects
            if key not in self._graphs:
                self._graphs[key] = self._record(shape, step)
            self._graphs[key].replay()
            self._pending.append(_PendingStep(step, index))
            if len(self._pending) % _STEPS_IN_A_ROW == 0:
                pass_gpu_lock()
        return self._loss

    def settle(self) -> None:
        """Wait for the steps under way, and repeat those that had too little room."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        wait()
        taken, most = self._taken[: len(pending)].tolist(), int(self._most_isects)
        # The last steps may not include the view that needs most.
        self._room = max(most, _DECAY * self._room)
        self._most_isects.zero_()
        if all(taken):
            return
        self._graphs.clear()
        for one, was_taken in zip(pending, taken, strict=True):
            if not was_taken:
                self._send(one.step, one.index)
                self._take(self._views.shape(one.index), one.step, None)

    @contextmanager
    def refinement(self) -> Iterator[None]:
        """A block that may replace the state's parameters, as where Gaussians are added or removed.

        Where the last one did, graphs are freed before it, since copies need the memory; it is
        given back at once only where this training has the GPU alone, because others would wait.
        """
        self.settle()
        before = {name: weakref.ref(param) for name, param in self._state.params.items()}
        frees = self._was_refined
        if frees:
            self._graphs.clear()
            del self._harmonics
            if not others_wait():
                self._recorder.release()
        yield
        params = self._state.params
        self._was_refined = any(before[name]() is not param for name, param in params.items())
        if frees or self._was_refined:
            self._renew()

    def _renew(self) -> None:
        """Go on with the state's new parameters."""
        self._room *= max(1.0, len(self._state.params["means"]) / max(self._count, 1))
        self._forget_graphs()
        self._recorder.renew()

    def _forget_graphs(self) -> None:
        """Drop the graphs, which work on tensors that may be gone."""
        self._graphs.clear()
        self._harmonics = self._state.join_harmonics()
        self._count = len(self._harmonics)

    def _needed_room(self) -> float:
        """Intersections in the fullest image, as long as poses are as given."""
        views, counts = self._views, []
        for camera, *where in zip(
            views.cameras,
            views.viewmats[:, None],
            self._eyes[:, None],
            views.Ks[:, None],
            strict=True,
        ):
            viewpoint = Viewpoint(*where, camera.width, camera.height)
            counts.append(count_isects(self._state.params, viewpoint, self._config))
        return float(torch.stack(counts).max())

    def _send(self, step: int, index: int) -> None:
        """Pass to the device what differs from step to step."""
        slot, row = len(self._pending), self._views.stacks[self._views.shape(index)].rows[index]
        self._integers[slot, :3] = index, row, slot
        schedule = self._schedule
        rates = schedule.means_lr(step), schedule.poses_lr(step), schedule.colors_lr(step)
        self._floats[slot, 6:9] = rates
        self._inputs.copy_(self._pinned[slot], non_blocking=True)

    def _record(self, shape: Shape, step: int) -> torch.cuda.CUDAGraph:
        room = (int(_MARGIN * self._room) // _GRAIN + 1) * _GRAIN
        return self._recorder.record(lambda: self._take(shape, step, room))

    def _take(self, shape: Shape, step: int, room: int | None) -> None:
        """One step on the device, of the view and the rates that were sent."""
        state, config = self._state, self._config
        harmonics = self._harmonics.detach().requires_grad_()
        loss, rendered = self._render_and_compare(shape, harmonics, step, room)
        names = ("means", "scales", "quats", "opacities")
        leaves = [*(state.params[name] for name in names), harmonics, rendered.means2d]
        learnt = [(state.corrections, state.pose_optimizer, self._poses_lr)] * config.pose_opt
        if config.color_opt:
            learnt.append((state.color_offsets, state.color_optimizer, self._colors_lr))
        leaves += [leaf for leaf, *_ in learnt]
        found = iter(torch.autograd.grad(loss, leaves))
        gradients = [next(found) for _ in names]
        by_sh, by_means2d = next(found), next(found)
        taken = self._always
        if room is None:
            self._room = max(self._room, float(rendered.isects))
        else:
            taken = (rendered.isects <= room).float()
            torch.maximum(self._most_isects, rendered.isects, out=self._most_isects)
            self._taken.index_copy_(0, self._slot, taken[None])
        optimizers = [state.optimizers[name] for name in names]
        rates = {state.optimizers["means"]: self._means_lr}
        for (_, optimizer, rate), gradient in zip(learnt, found, strict=True):
            optimizers.append(optimizer)
            gradients.append(gradient)
            rates[optimizer] = rate
        with torch.no_grad():
            descend(optimizers, gradients, taken, rates)
            of_harmonics = state.optimizers["sh0"], state.optimizers["shN"]
            descend_harmonics(*of_harmonics, self._harmonics, by_sh.contiguous(), taken)
            self._loss.copy_(loss)
            if densify.collects_at(state.strategy, step):
                gradient = rendered.means2d.absgrad if config.strategy.absgrad else by_means2d
                height, width = shape
                accumulate(state.strategy_state, gradient, rendered.radii, width, height, taken)

    def _render_and_compare(
        self, shape: Shape, harmonics: Tensor, step: int, room: int | None
    ) -> tuple[Tensor, Rendered]:
        """Loss [] of the view that was sent, and its render."""
        state, views, config, stack = (
            self._state,
            self._views,
            self._config,
            self._views.stacks[shape],
        )
        if config.pose_opt:
            pose, eye = Corrected.apply(state.pose_corrections(), views.viewmats, self._index)
        else:
            pose = views.viewmats.index_select(0, self._index)
            eye = self._eyes.index_select(0, self._index)
        K = views.Ks.index_select(0, self._index)
        background = (
            torch.rand(1, 3, device=state.device) if config.random_bkgd else self._background
        )
        height, width = shape
        viewpoint = Viewpoint(pose, eye, K, width, height)
        degree = self._schedule.sh_degree(step)
        rendered = render(state.params, harmonics, viewpoint, degree, background, config, room)
        target = stack.images.index_select(0, self._row)[0]
        mask = None if stack.masks is None else stack.masks.index_select(0, self._row)[0]
        image = rendered.image
        if state.maps_colors:
            image = color.applied(image, state.color_maps().index_select(0, self._index)[0])
        loss = photometric(image, target, config.ssim_lambda, mask)
        if self._weights is not None:
            loss = loss * self._weights.index_select(0, self._index)[0]
        loss = regularised(loss, state.params, config)
        if config.color_opt:
            loss = loss + config.color_opt_reg * color.distance(state.color_offsets)
        return loss, rendered
