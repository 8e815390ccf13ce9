"""Gaussians for timing: a random cloud, and textured surfaces as training leaves them."""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from stages.scenes.cameras import look_at

VIEWS = 8
DEGREE = 3


def blob(count: int, width: int, height: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """A normal cloud 4 units away; the more Gaussians, the smaller they are."""
    random = torch.Generator().manual_seed(0)
    scales = 0.06 * torch.rand(count, 3, generator=random) * (2000 / count) ** (1 / 3) + 0.005
    gaussians = [
        0.8 * torch.randn(count, 3, generator=random),
        torch.randn(count, 4, generator=random),
        scales,
        0.1 + 0.8 * torch.rand(count, generator=random),
        0.3 * torch.randn(count, (DEGREE + 1) ** 2, 3, generator=random),
    ]
    view = torch.eye(4)
    view[2, 3] = 4
    return gaussians, view.expand(VIEWS, 4, 4).contiguous(), _intrinsics(1.2 * width, width, height)


def room(count: int, width: int, height: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """A body, a box and a floor, covered to their neighbours, with a ring of cameras."""
    random = np.random.default_rng(0)
    means = _surfaces(count, random)
    distances, _ = cKDTree(means).query(means, k=4)
    spacing = np.sqrt((distances[:, 1:] ** 2).mean(1))[:, None]
    scales = np.clip(0.6 * spacing * np.exp(0.45 * random.normal(size=(count, 3))), 1e-3, 0.6)
    sh = 0.08 * random.normal(size=(count, (DEGREE + 1) ** 2, 3))
    sh[:, 0] = np.clip(0.35 * np.sin(3 * means), -0.5, 0.5) / 0.2821
    opacities = 1 / (1 + np.exp(-0.5 - 1.8 * random.normal(size=count)))
    arrays = (means, random.normal(size=(count, 4)), scales, opacities, sh)
    angles = 2 * np.pi * np.arange(VIEWS) / VIEWS
    eyes = [np.array([4 * np.cos(a), 0.8, 4 * np.sin(a)]) for a in angles]
    views = np.stack([look_at(eye, np.zeros(3), np.array([0, -1.0, 0])) for eye in eyes])
    focal = 0.5 * width / math.tan(math.radians(50) / 2)
    gaussians = [torch.tensor(array, dtype=torch.float32) for array in arrays]
    return gaussians, torch.tensor(views, dtype=torch.float32), _intrinsics(focal, width, height)


def _surfaces(count: int, random: np.random.Generator) -> np.ndarray:
    """Points [count, 3]: 45 % on a body, 25 % on a box, 20 % on a floor, the rest in the air."""
    body, box, floor = int(0.45 * count), int(0.25 * count), int(0.2 * count)
    directions = random.normal(size=(body, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ripple = 1 + 0.1 * np.sin(6 * directions[:, :1])
    sides = random.uniform(-1, 1, (box, 3))
    axis = random.integers(0, 3, box)
    sides[np.arange(box), axis] = np.sign(sides[np.arange(box), axis])
    radius, angle = 2.2 * np.sqrt(random.uniform(0, 1, floor)), random.uniform(0, 2 * np.pi, floor)
    parts = [
        directions * [0.6, 1.0, 0.45] * ripple,
        0.45 * sides + [1.0, -0.6, 0.5],
        np.stack([radius * np.cos(angle), np.full(floor, -1.05), radius * np.sin(angle)], 1),
        random.normal(size=(count - body - box - floor, 3)),
    ]
    return np.concatenate(parts)


def _intrinsics(focal: float, width: int, height: int) -> Tensor:
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return K.expand(VIEWS, 3, 3).contiguous()
