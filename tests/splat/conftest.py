"""Fixtures: a small scene of known Gaussians, rendered from a few cameras."""

from pathlib import Path

import numpy as np
import pytest
from known_scene import SCENE, TIMES, calibrate, known_gaussians, ring

from stages.run import layout
from stages.scenes.images import write_png
from stages.scenes.scene import Scene, write_scene
from stages.scenes.view import View
from stages.splat.config import StrategyConfig, TrainConfig, TrainRuntime
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.training.view_set import TrainView


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
        refine_start_iter=10,
        refine_every=10,
        refine_stop_iter=60,
        refine_scale2d_stop_iter=0,
        grow_grad2d=0.0002,
    )
    return TrainConfig(
        max_steps=80,
        sh_degree=0,
        max_gaussians=400,
        means_lr=0.004,
        scales_lr=0.02,
        sh0_lr=0.02,
        eval_steps=(40,),
        ply_steps=(40,),
        pose_opt=False,
        strategy=strategy,
        runtime=TrainRuntime(checkpoint_every=20),
    )


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
            views.append(View(camera, path, timestamp=time, role=roles[name]))
    write_scene(folder, {"name": SCENE, "group": "pair15"}, views)
    calibrate(cameras, roles, truth)
    return Scene.read(folder)
