"""A small scene of known Gaussians, photographed by a few cameras."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.run import layout
from stages.scenes.cameras import Camera, look_at
from stages.scenes.frames import Sim3
from stages.scenes.images import write_png
from stages.scenes.poses.calibration import Calibration, write_calibration
from stages.scenes.scene import Scene, View, write_scene
from stages.splat.config import StrategyConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.training.trainer import TrainView

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


@pytest.fixture(scope="session")
def truth() -> Gaussians:
    return known_gaussians()


@pytest.fixture(scope="session")
def views(truth: Gaussians) -> list[TrainView]:
    return [TrainView(camera, render(truth, camera, "cpu").rgb) for camera in ring(5)]


@pytest.fixture(scope="session")
def points(truth: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    xyz = truth.means.double().numpy()
    return xyz, np.full((len(xyz), 3), 128, np.uint8)


@pytest.fixture
def config() -> TrainConfig:
    strategy = StrategyConfig(
        refine_start_iter=10, refine_every=10, refine_stop_iter=60, refine_scale2d_stop_iter=0,
        grow_grad2d=0.0002,
    )  # fmt: skip
    return TrainConfig(
        max_steps=80, sh_degree=0, max_gaussians=400, means_lr=0.004, scales_lr=0.02,
        sh0_lr=0.02, eval_steps=(40,), ply_steps=(40,), checkpoint_every=20, pose_opt=False,
        strategy=strategy,
    )  # fmt: skip


@pytest.fixture
def scene(truth: Gaussians, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A prepared and exactly calibrated scene in the working folder: five sources, one target."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    folder, cameras = layout.scene(SCENE), {camera.name: camera for camera in ring(6)}
    roles = {name: "target" if name == "03" else "source" for name in cameras}
    views = []
    for time in TIMES:
        for name, camera in cameras.items():
            path = folder / "frames" / time / "images" / f"{name}.png"
            write_png(path, render(truth, camera, "cpu").rgb.numpy())
            views.append(View(camera, time, roles[name], path, None))
    write_scene(folder, {"name": SCENE, "group": "pair15"}, views)
    calibrate(cameras, roles, truth)
    return Scene.read(folder)


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
