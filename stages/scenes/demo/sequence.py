"""Writes one embedded sequence in Hi4D's raw layout. The same seed gives the same bytes."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from stages.run.errors import UserError
from stages.scenes.cameras import Camera
from stages.scenes.demo import motion, raytrace
from stages.scenes.demo.config import DemoConfig
from stages.scenes.demo.figures import Person, solve
from stages.scenes.demo.room import cameras, room
from stages.scenes.demo.textures import photographs

_NAME = re.compile(r"hi4d_pair(\d{2})_([a-z]+)")


def write_sequence(scene: str, config: DemoConfig, folder: Path) -> None:
    """Trace every frame of every camera of a scene such as hi4d_pair15_fight into `folder`."""
    pair, action = parse(scene)
    people = [Person.of_pair(pair, number, config.seed) for number in (0, 1)]
    textures = photographs() | people[0].textures | people[1].textures
    views = cameras(config.width_px, config.height_px)
    frames = [config.first_frame + config.frame_step * k for k in range(config.frames)]
    _write_calibration(folder, views, frames)
    for index, frame in enumerate(frames):
        phase = (index + 0.5) / len(frames)
        bodies = zip(people, motion.poses(action, phase), strict=True)
        meshes = [mesh for person, pose in bodies for mesh in person.meshes(solve(pose))]
        world = raytrace.build(room(pair) + meshes, textures)
        for number, camera in enumerate(views):
            seed = config.seed + 1009 * frame + number
            image, who = raytrace.trace(world, camera, config.samples, seed)
            _write_view(folder, camera.name, frame, image, who)


def parse(scene: str) -> tuple[int, str]:
    """Pair number and action in a scene's name. Raises UserError for any other name.

    >>> parse("hi4d_pair15_fight")
    (15, 'fight')
    """
    match = _NAME.fullmatch(scene)
    if not match:
        raise UserError("demo.scenes", repr(scene), expected="a name such as hi4d_pair15_fight")
    return int(match[1]), match[2]


def _write_calibration(folder: Path, views: list[Camera], frames: list[int]) -> None:
    (folder / "cameras").mkdir(parents=True)
    np.savez(
        folder / "cameras" / "rgb_cameras.npz",
        ids=np.array([int(view.name) for view in views]),
        intrinsics=np.stack([view.K for view in views]),
        extrinsics=np.stack([view.cam_from_world[:3] for view in views]),
        dist_coeffs=np.zeros((len(views), 5)),
    )
    np.savez(
        folder / "meta.npz",
        start=frames[0],
        end=frames[-1],
        num_persons=2,
        genders=np.array(["neutral", "neutral"]),
        mono_cam=int(views[0].name),
    )


def _write_view(folder: Path, camera: str, frame: int, image: np.ndarray, who: np.ndarray) -> None:
    photograph = folder / "images" / camera / f"{frame:06d}.jpg"
    photograph.parent.mkdir(parents=True, exist_ok=True)
    levels = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(levels).save(photograph, quality=95, subsampling=0)
    for kind, mask in (("0", who == 0), ("1", who == 1), ("all", who >= 0)):
        path = folder / "seg" / "img_seg_mask" / camera / kind / f"{frame:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
