"""The Gaussians that training starts from: sparse points, random points, or both.

`max_gaussians` holds from the start. What exceeds it is left out with a warning: random points
first, then sparse points that are chosen at random by the seed.
"""

import logging

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from stages.scenes.cameras import Array
from stages.splat.config import LEAST_GAUSSIANS, TrainConfig

_LOGGER = logging.getLogger(__name__)

SH_C0 = 0.28209479177387814
_GREY = 128
_ENOUGH_POINTS = 100  # fewer leave most of the image without a Gaussian to grow from


def parameters(
    points: Array,  # [P, 3], normalised frame
    colors: np.ndarray,  # [P, 3] uint8
    scene_scale: float,
    config: TrainConfig,
) -> tuple[dict[str, Tensor], str]:
    """Parameters by gsplat's names, and a description of their origin."""
    rng = np.random.default_rng(config.seed)
    kind = config.init_type
    if kind == "auto":
        kind = "sfm" if len(points) >= _ENOUGH_POINTS else "both"
    if kind != "random" and len(points) < LEAST_GAUSSIANS:
        kind = "random"
    if kind == "random":
        points, colors = points[:0], colors[:0]
    if len(points) and not colors.any():
        _LOGGER.warning("the sparse points have no colours: they start grey")
        colors = np.full_like(colors, _GREY)
    sparse = min(len(points), config.max_gaussians)
    if sparse < len(points):
        _LOGGER.warning(
            "train.max_gaussians: training starts from %d of %d sparse points, a random choice; "
            "raise it to %d or more to use all",
            sparse,
            len(points),
            len(points),
        )
        kept = np.sort(rng.permutation(len(points))[:sparse])
        points, colors = points[kept], colors[kept]
    if kind != "sfm":
        count = min(config.init_num_pts, config.max_gaussians - sparse)
        if count < config.init_num_pts:
            _LOGGER.warning(
                "train.max_gaussians: %d of the %d random points of train.init_num_pts fit beside "
                "%d sparse points; lower init_num_pts, or raise max_gaussians to %d",
                count,
                config.init_num_pts,
                sparse,
                config.init_num_pts + sparse,
            )
        extra = config.init_extent * scene_scale * rng.uniform(-1, 1, (count, 3))
        points = np.concatenate([points, extra])
        colors = np.concatenate([colors, rng.integers(0, 256, (count, 3))])
    distances = cKDTree(points).query(points, k=4)[0][:, 1:]
    size = np.sqrt(np.square(distances).mean(axis=1)) * config.init_scale
    # Colours are clamped at 0, where they have no gradient: black would stay black.
    colors = np.maximum(colors, 1)
    count, harmonics = len(points), (config.sh_degree + 1) ** 2
    values = {
        "means": points,
        "scales": np.log(np.maximum(size, 1e-7))[:, None].repeat(3, axis=1),
        "quats": rng.random((count, 4)),
        "opacities": np.full(count, np.log(config.init_opa / (1 - config.init_opa))),
        "sh0": ((colors / 255.0 - 0.5) / SH_C0)[:, None],
        "shN": np.zeros((count, harmonics - 1, 3)),
    }
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
    return tensors, f"{count} Gaussians from {kind} points"


def left_out(points: int, config: TrainConfig) -> int:
    """How many of so many sparse points `max_gaussians` leaves out at the start."""
    return 0 if config.init_type == "random" else max(points - config.max_gaussians, 0)
