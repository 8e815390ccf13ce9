"""A small scene of known Gaussians, and the cameras around it."""

from dataclasses import replace

import numpy as np
import torch

from stages.run import layout
from stages.scenes.cameras import Camera, look_at
from stages.scenes.frames import Sim3
from stages.scenes.poses.calibration import Calibration, write_calibration
from stages.scenes.scene import Scene
from stages.splat.gaussians import Gaussians

SIZE = 48  # px
SCENE = "hi4d_pair15_fight"
TIMES = ("000021", "000033")


def ring(count: int, size: int = SIZE) -> list[Camera]:
    K = np.array([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    angles = np.linspace(-0.7, 0.7, count)
    return [
        Camera(
            f"{k:02d}",
            K,
            look_at([4 * np.sin(a), -0.8, -4 * np.cos(a)], [0, 0, 0], [0, -1, 0]),
            size,
            size,
        )
        for k, a in enumerate(angles)
    ]


def known_gaussians(count: int = 150, degree: int = 0) -> Gaussians:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    return Gaussians(
        means=0.6 * draw(count, 3),
        quats=draw(count, 4),
        log_scales=-2.2 + 0.3 * draw(count, 3),
        opacity_logits=1.0 + draw(count),
        sh0=draw(count, 1, 3),
        shN=0.3 * draw(count, (degree + 1) ** 2 - 1, 3),
        world_from_norm=Sim3.identity(),
        antialiased=True,
    )


def calibrate(cameras: dict[str, Camera], roles: dict[str, str], truth: Gaussians) -> None:
    """Write true poses, and the Gaussians' centres as sparse points."""
    by_role = {
        role: {name: one for name, one in cameras.items() if roles.get(name) == role}
        for role in ("source", "target")
    }
    calibration = Calibration("given", Sim3.identity(), by_role["source"], by_role["target"])
    xyz = truth.means.double().numpy()
    points = (xyz, np.full((len(xyz), 3), 128, np.uint8))
    layout.calibrated(SCENE).mkdir(parents=True, exist_ok=True)
    write_calibration(layout.calibrated(SCENE), calibration, dict.fromkeys(TIMES, points))


def with_targets(scene: Scene, names: tuple[str, ...], truth: Gaussians) -> Scene:
    """The scene, and its calibration on disk, with these of its cameras as targets."""
    views = tuple(
        replace(view, role="target" if view.name in names else "source") for view in scene.all_views
    )
    cameras = {view.name: view.camera for view in views}
    calibrate(cameras, {view.name: view.role for view in views}, truth)
    return replace(scene, all_views=views)


def opaque_surface(points: np.ndarray) -> Gaussians:
    """A nearly opaque Gaussian of radius 0.03 at each of the points [N, 3]."""
    n = len(points)
    return Gaussians(
        means=torch.tensor(points, dtype=torch.float32),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        log_scales=torch.full((n, 3), float(np.log(0.03))),
        opacity_logits=torch.full((n,), 4.0),
        sh0=torch.zeros(n, 1, 3),
        shN=torch.zeros(n, 0, 3),
        world_from_norm=Sim3.identity(),
        antialiased=False,
    )
