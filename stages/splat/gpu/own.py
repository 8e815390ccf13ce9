"""This project's rasteriser for a GPU, differentiable: one camera, harmonics, nothing awaited.

Conventions are gsplat's, as in stages/splat/cpu. Its kernels are in project.cu and
blend.cu; intersections of Gaussians and tiles are found by `bins`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages.splat.gpu import bins
from stages.splat.gpu.compiled import Kernels, kernels

EPS2D = 0.3  # px^2
_VALUES = 12  # of a packed Gaussian and of its gradient: VALUES of the kernels
_PROJECT_THREADS, _BLEND_THREADS = 128, 256


@dataclass(frozen=True)
class Settings:
    """What a render depends on beside tensors."""

    width: int
    height: int
    sh_degree: int
    near: float = 0.01
    far: float = 1e10
    eps2d: float = EPS2D
    antialiased: bool = False
    absgrad: bool = False
    depth: bool = False
    learnt: bool = False  # scales are logarithms, opacities logits
    room: int | None = None  # intersections to have room for; None: the host waits for their number


class Splat(torch.autograd.Function):
    """Project, bin and blend."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,  # [N, 3]
        quats: Tensor,  # [N, 4] wxyz, any length
        scales: Tensor,  # [N, 3]
        opacities: Tensor,  # [N]
        harmonics: Tensor,  # [N, K, 3]
        cam_from_world: Tensor,  # [4, 4]
        eye: Tensor,  # [3], the camera's centre
        background: Tensor,  # [3], or 4 with depth
        means2d: Tensor,  # [1, N, 2]; its gradient is that by the projected means, px
        K: Tensor,  # [3, 3] px
        settings: Settings,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The render, the light that passes, radii and a count; backward sets absgrad if asked.

        Returns:
            the image [H, W, 3], or 4 with depth; the light [H, W] that passes all Gaussians:
            1 - alpha; radii [1, N, 2] int32 px, 0 where not visible; and the number [] int32 of
            intersections of Gaussians and tiles. With `absgrad`, backward sets `means2d.absgrad`.
        """
        one = settings
        count, channels, empty = len(means), 3 + one.depth, means.new_empty
        inputs = [means, quats, scales, opacities, harmonics, cam_from_world, eye, K]
        inputs = [tensor.detach().contiguous() for tensor in inputs]
        packed = empty(count, _VALUES)
        radii = empty(count, 2, dtype=torch.int32)
        splats = bins.Splats(empty(count, 2), radii, empty(count), empty(count, 3), empty(count))
        project, blend = _kernels(harmonics.shape[1], settings)
        numbers = (count, one.sh_degree, int(one.antialiased), one.width, one.height)
        project.launch(
            "project",
            (-(-count // _PROJECT_THREADS),),
            _PROJECT_THREADS,
            *inputs,
            packed,
            *splats,
            *numbers,
            float(one.near),
            float(one.far),
            float(one.eps2d),
        )
        filled = bins.fill(splats, one.width, one.height, one.room)
        image = empty(one.height, one.width, channels)
        left = empty(one.height, one.width)
        last = empty(one.height, one.width, dtype=torch.int32)
        background = background.detach().contiguous()
        size = one.width, one.height
        blend.launch(
            "blend",
            _tiles(settings),
            _BLEND_THREADS,
            *(packed, filled.ids, filled.offsets, background, image, left, last),
            *size,
        )
        ctx.save_for_backward(
            *inputs, packed, radii, filled.ids, filled.offsets, background, left, last
        )
        ctx.settings, ctx.means2d = settings, means2d
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(radii, filled.isects)
        return image, left, radii[None], filled.isects

    @staticmethod
    def backward(
        ctx: Any, by_image: Tensor | None, by_left: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of all inputs but K."""
        *inputs, packed, radii, ids, offsets, background, left, last = ctx.saved_tensors
        means, *_, harmonics, _pose, _eye, _K = inputs
        one: Settings = ctx.settings
        if by_image is None:
            by_image = means.new_zeros(one.height, one.width, 3 + one.depth)
        by_image = by_image.contiguous()
        count, project, blend = len(means), *_kernels(harmonics.shape[1], one)
        sums = means.new_zeros(count, _VALUES)
        blend.launch(
            "blend_backward",
            _tiles(one),
            _BLEND_THREADS,
            *(packed, ids, offsets, background, left, last, by_image),
            None if by_left is None else by_left.contiguous(),
            *(sums, one.width, one.height),
        )
        gradients = [torch.empty_like(tensor) for tensor in inputs[:5]]
        by_means2d = means.new_empty(1, count, 2)
        absolute = torch.empty_like(by_means2d) if one.absgrad else None
        moves = ctx.needs_input_grad[5] or ctx.needs_input_grad[6]
        by_camera = means.new_zeros(15) if moves else None
        project.launch(
            "project_backward",
            (-(-count // _PROJECT_THREADS),),
            _PROJECT_THREADS,
            *inputs,
            *(packed, radii, sums, *gradients, by_means2d, absolute, by_camera),
            *(count, one.sh_degree, int(one.antialiased), one.width, one.height),
            float(one.eps2d),
        )
        if absolute is not None:
            ctx.means2d.absgrad = absolute
        by_pose = by_eye = by_background = None
        if by_camera is not None:
            by_pose = torch.cat([by_camera[:12], by_camera.new_zeros(4)]).view(4, 4)
            by_eye = by_camera[12:]
        if ctx.needs_input_grad[7]:
            by_background = (by_image * left[..., None]).sum((0, 1))
        return *gradients, by_pose, by_eye, by_background, by_means2d, None, None


def _kernels(coefficients: int, settings: Settings) -> tuple[Kernels, Kernels]:
    """Of projection and of blending."""
    both = {"CHANNELS": 3 + settings.depth, "ABSOLUTE": int(settings.absgrad)}
    project = kernels("project.cu", COEFFICIENTS=coefficients, LEARNT=int(settings.learnt), **both)
    return project, kernels("blend.cu", fast=True, **both)


def _tiles(settings: Settings) -> tuple[int, int]:
    """Columns and rows."""
    return -(-settings.width // bins.TILE), -(-settings.height // bins.TILE)
