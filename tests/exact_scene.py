"""A small scene on disk: its photographs are exact renders of its Gaussians by true cameras."""

import numpy as np
import torch

from stages.run import layout
from stages.scenes import scene
from stages.scenes.cameras import Camera, look_at, rigid, rotation_from_vector
from stages.scenes.frames import Sim3
from stages.scenes.images import write_png
from stages.scenes.poses.calibration import Calibration, transfer_targets, write_calibration
from stages.scenes.view import View
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.viewing.scene_folders import SceneFolders

SCENE = "hi4d_pair15_fight"
TIMES = ("000021", "000033")
SIZE = 48  # px
# The estimated frame lies turned, shifted and twice as large.
EST_FROM_TRUE = Sim3(2.0, rotation_from_vector([0.2, 0.5, -0.1]), np.array([1.0, -2.0, 0.5]))


def camera(name: str, angle: float) -> Camera:
    K = np.array([[1.2 * SIZE, 0, SIZE / 2], [0, 1.2 * SIZE, SIZE / 2], [0, 0, 1]])
    eye = [4 * np.sin(angle), -0.8, -4 * np.cos(angle)]
    return Camera(name, K, look_at(eye, [0, 0, 0], [0, -1, 0]), SIZE, SIZE)


SOURCES = {name: camera(name, angle) for name, angle in (("4", -0.6), ("16", 0.0), ("40", 0.6))}
TARGETS = {name: camera(name, angle) for name, angle in (("28", -0.3), ("64", 0.3))}


def gaussians(time: str) -> Gaussians:
    """Coloured blobs in the true frame, known to the estimated one through `world_from_norm`."""
    random = torch.Generator().manual_seed(int(time))
    count = 120
    return Gaussians(
        means=0.6 * torch.randn(count, 3, generator=random),
        quats=torch.randn(count, 4, generator=random),
        log_scales=torch.full((count, 3), -2.0),
        opacity_logits=torch.full((count,), 2.0),
        sh0=torch.randn(count, 1, 3, generator=random),
        shN=torch.zeros(count, 0, 3),
        world_from_norm=EST_FROM_TRUE,
        antialiased=False,
    )


def folders(methods: tuple[str, ...]) -> SceneFolders:
    """Where the scene and its novel views lie below the current folder."""
    return SceneFolders(
        layout.scene(SCENE),
        layout.calibrated(SCENE),
        layout.splats(SCENE),
        {method: layout.novel_views(SCENE, method) for method in methods},
        {method: layout.view_metrics(SCENE, method) for method in methods},
    )


def write_scene() -> None:
    """Write the prepared scene, its Gaussians and an exact calibration below the current folder."""
    folder, views = layout.scene(SCENE), []
    for time in TIMES:
        truth = gaussians(time)
        truth.save(layout.splats(SCENE) / time / "gaussians.safetensors")
        for role, group in (("source", SOURCES), ("target", TARGETS)):
            for name, one in group.items():
                path = folder / "frames" / time / "images" / f"{name}.png"
                picture = render(truth, EST_FROM_TRUE.apply_camera(one), "cpu").rgb
                write_png(path, picture.numpy())
                views.append(View(one, path, timestamp=time, role=role))
    scene.write_scene(folder, {"name": SCENE, "group": "pair15"}, views)
    calibrate({})


def calibrate(turns: dict[str, float]) -> None:
    """Write the calibration; `turns` rotates estimated targets by so many radians."""
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    found, _ = transfer_targets("given", estimated, SOURCES, TARGETS)
    targets = dict(found.targets)
    for name, turn in turns.items():
        error = rigid(rotation_from_vector([0, turn, 0]), np.zeros(3))
        targets[name] = targets[name].moved(error @ targets[name].cam_from_world)
    moved = Calibration("given", found.est_from_true, found.sources, targets)
    write_calibration(layout.calibrated(SCENE), moved, {})
