"""One picture by gsplat's kernels, with nothing that makes the host wait.

`gsplat.rasterization` inverts the pose on the device, which waits for its error code, and counts
what it draws, which waits for the count. The kernels and their order are the same here.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.splat.config import TrainConfig
from stages.splat.gpu import bins
from stages.splat.raster import fully_fused_projection, rasterize_to_pixels, spherical_harmonics


class Drawn(NamedTuple):
    """A picture, and what densification and the next step ask of it."""

    image: Tensor  # [H, W, 3]
    means2d: Tensor  # [1, N, 2] px, in the graph
    radii: Tensor  # [1, N, 2] int32 px
    total: Tensor  # [] int32, meetings of Gaussians and tiles


class Viewpoint(NamedTuple):
    """Where from, and how large."""

    cam_from_norm: Tensor  # [1, 4, 4]
    eye: Tensor  # [1, 3], the camera's place
    K: Tensor  # [1, 3, 3] px
    width: int
    height: int


def draw(
    params: dict[str, Tensor],
    harmonics: Tensor,  # [N, K, 3], of sh0 and shN
    view: Viewpoint,
    sh_degree: int,
    background: Tensor,  # [1, 3]
    config: TrainConfig,
    room: int | None = None,
) -> Drawn:
    """Draw parameters as they are trained; without `room` the host waits for what is needed."""
    means = params["means"]
    opacities = torch.sigmoid(params["opacities"])
    radii, means2d, depths, conics, compensations = _projected(params, opacities, view, config)
    opacities = opacities[None]
    if config.antialiased:
        opacities = opacities * compensations
    seen = (radii > 0).all(dim=-1)
    directions = means[None] - view.eye[:, None]
    shaded = spherical_harmonics(sh_degree, directions, harmonics[None], masks=seen)
    splats = bins.Splats(means2d[0], radii[0], depths[0], conics[0], opacities[0])
    placed = bins.fill(splats, view.width, view.height, room)
    image, _ = rasterize_to_pixels(
        means2d, conics, torch.clamp_min(shaded + 0.5, 0), opacities, view.width, view.height,
        bins.TILE, placed.offsets, placed.ids, backgrounds=background, masks=placed.drawn,
        absgrad=config.strategy.absgrad,
    )  # fmt: skip
    return Drawn(image[0], means2d, radii, placed.total)


@torch.no_grad()
def meetings(params: dict[str, Tensor], view: Viewpoint, config: TrainConfig) -> Tensor:
    """Meetings of Gaussians and tiles in a picture that is not drawn, []."""
    opacities = torch.sigmoid(params["opacities"])
    radii, means2d, *_ = _projected(params, opacities, view, config)
    return bins.meetings(means2d[0], radii[0], view.width, view.height)


def _projected(
    params: dict[str, Tensor], opacities: Tensor, view: Viewpoint, config: TrainConfig
) -> tuple[Tensor, ...]:
    """Radii, means, depths, conics and compensations of Gaussians on a picture."""
    return fully_fused_projection(
        params["means"], None, params["quats"], torch.exp(params["scales"]), view.cam_from_norm,
        view.K, view.width, view.height, near_plane=config.near_plane,
        far_plane=config.far_plane, calc_compensations=config.antialiased, opacities=opacities,
    )  # fmt: skip
