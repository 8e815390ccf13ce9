"""A small COLMAP dataset on disk: exact renders of known Gaussians, names with LEFT and RIGHT."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stages.scenes.cameras import Camera, look_at
from stages.scenes.colmap import write_model
from stages.scenes.frames import Sim3
from stages.scenes.images import write_png
from stages.splat.gaussians import Gaussians
from stages.splat.render import render

SIZE = (56, 48)  # px
NAMES = tuple(f"{side}/{k:02d}_{side}.png" for side in ("LEFT", "RIGHT") for k in range(4))


def gaussians() -> Gaussians:
    """Coloured blobs around the origin."""
    random = torch.Generator().manual_seed(3)
    count = 160
    return Gaussians(
        means=0.6 * torch.randn(count, 3, generator=random),
        quats=torch.randn(count, 4, generator=random),
        log_scales=torch.full((count, 3), -2.0),
        opacity_logits=torch.full((count,), 2.0),
        sh0=torch.randn(count, 1, 3, generator=random),
        shN=torch.zeros(count, 0, 3),
        world_from_norm=Sim3.identity(),
        antialiased=False,
    )


def cameras(names: tuple[str, ...] = NAMES, shift: float = 0.0) -> dict[str, Camera]:
    """Cameras on an arc, by image name."""
    width, height = SIZE
    K = np.array([[60.0, 0, width / 2], [0, 60.0, height / 2], [0, 0, 1]])
    found = {}
    for name, angle in zip(names, np.linspace(-0.8, 0.8, len(names)) + shift, strict=True):
        eye = [4 * np.sin(angle), -0.7 + 0.3 * np.cos(5 * angle), -4 * np.cos(angle)]
        found[name] = Camera(name, K, look_at(eye, [0, 0, 0], [0, -1, 0]), width, height)
    return found


def write_capture(
    folder: Path,
    placed: dict[str, Camera] | None = None,
    frame: Sim3 | None = None,
    save: Callable[[Path, np.ndarray], None] = write_png,
) -> Path:
    """Write photographs and a model whose world is moved by `frame`; return the folder."""
    truth, placed, frame = gaussians(), placed or cameras(), frame or Sim3.identity()
    for name, camera in placed.items():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, render(truth, camera, "cpu").rgb.numpy())
    moved = {name: replace(frame.apply_camera(one), name=name) for name, one in placed.items()}
    points = frame.apply(truth.means.double().numpy())
    write_model(folder / "sparse" / "0", moved, points, np.full((len(points), 3), 128, np.uint8))
    return folder
