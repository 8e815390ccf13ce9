"""One render of a training step, with nothing that makes the host wait: by `own`, or by gsplat.

`gsplat.rasterization` inverts the pose on the device, which waits for its error code, and counts
intersections, which waits for the count. The kernels and their order are the same here.
"""

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from stages.run.notes import unshown
from stages.splat.config import TrainConfig
from stages.splat.gpu import bins, compiled, own
from stages.splat.raster import fully_fused_projection, rasterize_to_pixels, spherical_harmonics

_LOGGER = logging.getLogger(__name__)


class Rendered(NamedTuple):
    """A render, and what densification and the next step read of it."""

    image: Tensor  # [H, W, 3]
    means2d: Tensor  # [1, N, 2] whose gradient is that by the projected means, px
    radii: Tensor  # [1, N, 2] int32 px
    isects: Tensor  # [] int32, number of intersections of Gaussians and tiles


class Viewpoint(NamedTuple):
    """Pose, intrinsics and size of one render."""

    cam_from_norm: Tensor  # [1, 4, 4]
    eye: Tensor  # [1, 3], the camera's centre
    K: Tensor  # [1, 3, 3] px
    width: int
    height: int


def usable(config: TrainConfig) -> TrainConfig:
    """The recipe, with gsplat's kernels where this project's cannot be built; that is reported."""
    if config.rasteriser == "gsplat":
        return config
    why = compiled.failure()
    if why is None:
        return config
    for note in unshown([f"train.rasteriser: gsplat's kernels instead of own, because {why}"]):
        _LOGGER.warning(note)
    return config.model_copy(update={"rasteriser": "gsplat"})


def render(
    params: dict[str, Tensor],
    harmonics: Tensor,  # [N, K, 3], of sh0 and shN
    viewpoint: Viewpoint,
    sh_degree: int,
    background: Tensor,  # [1, 3]
    config: TrainConfig,
    room: int | None = None,
) -> Rendered:
    """Render parameters as they are trained.

    Args:
        params: by gsplat's names; scales are logarithms, opacities are logits.
        harmonics: all coefficients.
        viewpoint: pose, intrinsics and size.
        sh_degree: degree of the harmonics to use.
        background: colour behind the Gaussians.
        config: planes, antialiasing and absgrad.
        room: intersections to have room for; without it the host waits for their number.
    """
    if config.rasteriser == "own":
        return _render_own(params, harmonics, viewpoint, sh_degree, background, config, room)
    means = params["means"]
    opacities = torch.sigmoid(params["opacities"])
    radii, means2d, depths, conics, compensations = _projected(params, opacities, viewpoint, config)
    opacities = opacities[None]
    if config.antialiased:
        opacities = opacities * compensations
    visible = (radii > 0).all(dim=-1)
    directions = means[None] - viewpoint.eye[:, None]
    shaded = spherical_harmonics(sh_degree, directions, harmonics[None], masks=visible)
    splats = bins.Splats(means2d[0], radii[0], depths[0], conics[0], opacities[0])
    filled = bins.fill(splats, viewpoint.width, viewpoint.height, room)
    image, _ = rasterize_to_pixels(
        means2d,
        conics,
        torch.clamp_min(shaded + 0.5, 0),
        opacities,
        viewpoint.width,
        viewpoint.height,
        bins.TILE,
        filled.offsets,
        filled.ids,
        backgrounds=background,
        masks=filled.rendered,
        absgrad=config.strategy.absgrad,
    )
    return Rendered(image[0], means2d, radii, filled.isects)


def _render_own(
    params: dict[str, Tensor],
    harmonics: Tensor,
    viewpoint: Viewpoint,
    sh_degree: int,
    background: Tensor,
    config: TrainConfig,
    room: int | None,
) -> Rendered:
    means = params["means"]
    means2d = means.new_empty(1, len(means), 2).requires_grad_()  # read by nobody
    settings = own.Settings(
        viewpoint.width,
        viewpoint.height,
        sh_degree,
        config.near_plane,
        config.far_plane,
        antialiased=config.antialiased,
        absgrad=config.strategy.absgrad,
        learnt=True,
        room=room,
    )
    image, _, radii, isects = own.Splat.apply(
        means,
        params["quats"],
        params["scales"],
        params["opacities"],
        harmonics,
        viewpoint.cam_from_norm[0],
        viewpoint.eye[0],
        background[0],
        means2d,
        viewpoint.K[0],
        settings,
    )
    return Rendered(image, means2d, radii, isects)


@torch.no_grad()
def count_isects(params: dict[str, Tensor], viewpoint: Viewpoint, config: TrainConfig) -> Tensor:
    """Number [] of intersections of Gaussians and tiles, without rendering."""
    opacities = torch.sigmoid(params["opacities"])
    radii, means2d, *_ = _projected(params, opacities, viewpoint, config)
    return bins.count_isects(means2d[0], radii[0], viewpoint.width, viewpoint.height)


def _projected(
    params: dict[str, Tensor], opacities: Tensor, viewpoint: Viewpoint, config: TrainConfig
) -> tuple[Tensor, ...]:
    """Radii, means, depths, conics and compensations of the projected Gaussians."""
    return fully_fused_projection(
        params["means"],
        None,
        params["quats"],
        torch.exp(params["scales"]),
        viewpoint.cam_from_norm,
        viewpoint.K,
        viewpoint.width,
        viewpoint.height,
        near_plane=config.near_plane,
        far_plane=config.far_plane,
        calc_compensations=config.antialiased,
        opacities=opacities,
    )
