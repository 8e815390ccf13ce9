"""Writes one embedded sequence in Hi4D's raw layout. The same seed gives the same bytes."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.run.errors import UserError
from stages.run.process.cores import available_cores
from stages.scenes.cameras import Array, Camera
from stages.scenes.demo import raytrace
from stages.scenes.demo.config import DemoConfig
from stages.scenes.demo.light import light
from stages.scenes.demo.people import motion
from stages.scenes.demo.people.figures import Person
from stages.scenes.demo.people.skeleton import solve
from stages.scenes.demo.ring import ring
from stages.scenes.demo.room import room
from stages.scenes.demo.shapes.meshes import Mesh
from stages.scenes.demo.shapes.textures import load_texture

_NAME = re.compile(r"hi4d_pair(\d{2})_([a-z]+)")
_PRINTS = ("chelsea", "rocket", "coffee", "astronaut")


def write_sequence(scene: str, config: DemoConfig, folder: Path) -> None:
    """Ray-trace a scene such as hi4d_pair15_fight, all frames and cameras, into `folder`."""
    pair, action = parse(scene)
    people = people_of(pair, config.seed)
    furnished, textures = room(pair, config.seed)
    textures = textures | people[0].textures | people[1].textures
    views = ring(config.width_px, config.height_px)
    frames = [config.first_frame + config.frame_step * k for k in range(config.frames)]
    _write_calibration(folder, views, frames, people)
    atlas = raytrace.atlas(textures)
    for index, frame in enumerate(frames):
        bodies = posed_meshes(people, action, (index + 0.5) / len(frames), pair)
        geometry = raytrace.join(furnished + bodies)
        world = raytrace.build_world(geometry, light(geometry), atlas)

        def write(number: int, world: raytrace.World = world, frame: int = frame) -> None:
            seed = config.seed + 1009 * frame + number
            image, person = raytrace.trace(world, views[number], config.samples, seed)
            _write_view(folder, views[number].name, frame, image, person)

        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(write, range(len(views))))


def parse(scene: str) -> tuple[int, str]:
    """Pair number and action in a scene's name. Raises UserError for any other name.

    >>> parse("hi4d_pair15_fight")
    (15, 'fight')
    """
    match = _NAME.fullmatch(scene)
    if not match:
        raise UserError("demo.scenes", repr(scene), expected="a name such as hi4d_pair15_fight")
    return int(match[1]), match[2]


def people_of(pair: int, seed: int) -> tuple[Person, Person]:
    """The two people of a pair."""
    prints = [load_texture(name, (70, 96)) for name in _PRINTS]
    return Person.of_pair(pair, 0, seed, prints), Person.of_pair(pair, 1, seed, prints)


def posed_meshes(people: tuple[Person, Person], action: str, phase: float, pair: int) -> list[Mesh]:
    """Meshes of both people at a phase of an action; dances differ between pairs."""
    builds = people[0].build, people[1].build
    both = motion.poses(action, phase, builds, variant=pair // 2)
    skeletons = (solve(build, pose) for build, pose in zip(builds, both, strict=True))
    return [
        mesh
        for person, skeleton in zip(people, skeletons, strict=True)
        for mesh in person.meshes(skeleton)
    ]


def _write_calibration(
    folder: Path, views: list[Camera], frames: list[int], people: tuple[Person, Person]
) -> None:
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
        num_persons=len(people),
        genders=np.array([person.gender for person in people]),
        mono_cam=int(views[0].name),
    )


def _write_view(
    folder: Path, camera: str, frame: int, image: Array, person: NDArray[np.int8]
) -> None:
    image_path = folder / "images" / camera / f"{frame:06d}.jpg"
    image_path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(
        image_path, quality=95, subsampling=0
    )
    for kind, mask in (("0", person == 0), ("1", person == 1), ("all", person >= 0)):
        path = folder / "seg" / "img_seg_mask" / camera / kind / f"{frame:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
