"""Images with known poses for the benchmark of calibration, ray-traced on all cores.

`write_scene`: the demo's six source cameras at Hi4D's size. `write_phone`: a walk through the
demo's room with a phone. `write_ring`: the demo's people from all around. Captures have
truth.json, cameras by image name.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from stages.run.files import read_json, write_json
from stages.run.process.cores import available_cores
from stages.scenes.cameras import Array, Camera, look_at
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.demo import raytrace
from stages.scenes.demo.capture import undistorted
from stages.scenes.demo.config import DemoConfig
from stages.scenes.demo.light import light
from stages.scenes.demo.room import room
from stages.scenes.demo.sequence import people_of, posed_meshes, write_sequence
from stages.scenes.scene import camera_to_dict, cameras_from_dict
from stages.scenes.sources.importer import import_scene

# Timestamps that are traced; a longer scene repeats them.
_ACTIONS = ("dance", "talk", "fight", "jump", "piggyback")
_SOURCES, _TARGETS = ("4", "16", "40", "52", "76", "88"), ("28", "64")
_PHONE_FOCAL, _PHONE_K1 = 0.75, -0.05  # of the longer side; radial distortion


@dataclass(frozen=True)
class _Shot:
    """One image of a capture, of pair's room, with its people or without."""

    camera: Camera
    pair: int
    k1: float
    people: bool


def write_scene(folder: Path, timestamps: int, size: tuple[int, int]) -> None:
    """A prepared scene of six source cameras; images are of (width, height) px."""
    actions = _ACTIONS[:timestamps]
    with tempfile.TemporaryDirectory() as scratch:
        raw, traced = Path(scratch, "raw"), Path(scratch, "prepared")
        parts = [Path(scratch, action) for action in actions]
        with ProcessPoolExecutor(available_cores()) as pool:
            list(pool.map(_write_timestamp, parts, actions, [size] * len(parts)))
        for number, part in enumerate(parts, start=1):
            # meta.npz names the part's own range of frames.
            for path in sorted({*part.rglob("*.*")} - {part / "meta.npz"}):
                name = path.relative_to(part)
                if path.stem.isdigit():
                    name = name.with_stem(f"{number:06d}")
                (raw / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, raw / name)
        entry = SceneEntry(source="demo", source_cameras=_SOURCES, target_cameras=_TARGETS)
        import_scene("hi4d_pair15_fight", entry, PrepareConfig(height_px=size[1]), raw, traced)
        repeat(traced, folder, timestamps)


def _write_timestamp(folder: Path, action: str, size: tuple[int, int]) -> None:
    config = DemoConfig(frames=1, width_px=size[0], height_px=size[1], samples=1)
    write_sequence(f"hi4d_pair15_{action}", config, folder)


def repeat(scene: Path, folder: Path, timestamps: int) -> None:
    """A prepared scene with its timestamps repeated until there are as many."""
    info = read_json(scene / "scene.json")
    known = info["timestamps"]
    names = [f"{number:06d}" for number in range(1, timestamps + 1)]
    head, *rows = (scene / "split.csv").read_text().splitlines()
    lines = [head]
    for number, name in enumerate(names):
        old = known[number % len(known)]
        own = [row for row in rows if row.startswith(f"frames/{old}/")]
        lines += [row.replace(old, name) for row in own]
        shutil.copytree(scene / "frames" / old, folder / "frames" / name)
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    write_json(folder / "scene.json", info | {"timestamps": names})


def write_phone(folder: Path, images: int, size: tuple[int, int]) -> None:
    """A walk through the room, looking at its walls; upright images by one lens."""
    shots = []
    for k in range(images):
        share = k / max(images - 1, 1)
        angle = np.radians(100) * (share - 0.5)
        eye = [
            1.9 * np.sin(angle) + 0.15 * np.sin(5.1 * k),
            1.45 + 0.25 * np.sin(1.7 * k),
            0.6 + 1.5 * np.cos(angle) + 0.2 * np.cos(2.9 * k),
        ]
        pose = look_at(eye, [1.6 * np.sin(0.9 * angle), 1.1 + 0.2 * np.cos(k), -1.8], [0, 1, 0])
        camera = Camera(f"{k:03d}.jpg", _phone_lens(size), pose, *size)
        shots.append(_Shot(camera, 40, _PHONE_K1, False))
    _write_capture(folder, shots)


def write_ring(folder: Path, images: int, size: tuple[int, int]) -> None:
    """People in the middle of the room from all around, at equal angles and three heights."""
    K = np.array([[1.1 * size[0], 0, size[0] / 2], [0, 1.1 * size[0], size[1] / 2], [0, 0, 1]])
    shots = []
    for k in range(images):
        angle = 2 * np.pi * k / images
        eye = [2.2 * np.sin(angle), 1.3 + 0.25 * (k % 3), 2.2 * np.cos(angle)]
        pose = look_at(eye, [0, 0.95, 0], [0, 1, 0])
        shots.append(_Shot(Camera(f"{k:03d}.jpg", K, pose, *size), 15, 0.0, True))
    _write_capture(folder, shots)


def true_cameras(folder: Path) -> dict[str, Camera]:
    """The cameras of truth.json by image name; none without the file."""
    path = folder / "truth.json"
    return cameras_from_dict(read_json(path)) if path.is_file() else {}


def _phone_lens(size: tuple[int, int]) -> Array:
    focal = _PHONE_FOCAL * max(size)
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])


def _write_capture(folder: Path, shots: Sequence[_Shot]) -> None:
    (folder / "images").mkdir(parents=True)
    with ProcessPoolExecutor(available_cores()) as pool:
        list(pool.map(_write_image, [folder / "images"] * len(shots), shots))
    truth: Mapping[str, dict] = {shot.camera.name: camera_to_dict(shot.camera) for shot in shots}
    write_json(folder / "truth.json", truth)


def _write_image(folder: Path, shot: _Shot) -> None:
    camera = shot.camera
    coefficients = np.array([shot.k1, 0.0, 0.0, 0.0, 0.0])

    def undistort(pixels: Array) -> Array:
        points = (pixels - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]]
        ideal = undistorted(points, coefficients) if shot.k1 else points
        return ideal * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]

    world = _world(shot.pair, shot.people)
    image, _ = raytrace.trace(world, camera, 1, int(camera.name[:3]), undistort)
    levels = np.rint(255 * image).astype(np.uint8)
    Image.fromarray(levels).save(folder / camera.name, quality=95)


@lru_cache(maxsize=1)
def _world(pair: int, with_people: bool) -> raytrace.World:
    meshes, textures = room(pair, 0)
    if with_people:
        people = people_of(pair, 0)
        textures = textures | people[0].textures | people[1].textures
        meshes = meshes + posed_meshes(people, "talk", 0.5, pair)
    geometry = raytrace.join(meshes)
    return raytrace.build_world(geometry, light(geometry), raytrace.atlas(textures))
