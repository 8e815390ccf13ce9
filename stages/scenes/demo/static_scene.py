"""Writes one embedded static scene in the layout of a user's raw data.

`static/` contains monocular/, iphone/, stereo/, lightfield/ and iphone_eval/, and truth.json with
their true cameras by the image names of a prepared scene. The same seed gives the same bytes.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from stages.run.errors import UserError
from stages.run.files import write_json
from stages.scenes.cameras import Array, Camera
from stages.scenes.demo import devices, raytrace
from stages.scenes.demo.light import light
from stages.scenes.demo.room import room
from stages.scenes.demo.sequence import parse, people_of, posed_meshes
from stages.scenes.scene import camera_to_dict
from stages.scenes.static.config import StaticDemoConfig

# PlenoptiCam names the folder of sub-aperture views by their number per side.
_VIEWS_FOLDER = "viewpoints_{side}px"
_PREFIX = "static_"
_EXIF_IFD, _EXIF_FOCAL_35MM = 0x8769, 0xA405


def write_static_scene(scene: str, config: StaticDemoConfig, folder: Path) -> int:
    """Ray-trace a scene such as static_pair02_talk; returns the number of images."""
    if not scene.startswith(_PREFIX):
        raise UserError(
            "static_demo.scenes", repr(scene), expected="a name such as static_pair02_talk"
        )
    pair, action = parse(f"hi4d_{scene.removeprefix(_PREFIX)}")
    people = people_of(pair, config.seed)
    furnished, textures = room(pair, config.seed)
    textures = textures | people[0].textures | people[1].textures
    geometry = raytrace.join(furnished + posed_meshes(people, action, 0.4, pair))
    world = raytrace.build_world(geometry, light(geometry), raytrace.atlas(textures))
    images = _images(config)
    for number, (name, camera, _) in enumerate(images):
        image = raytrace.trace(world, camera, config.samples, config.seed + number)[0]
        _save(folder / "static" / name, image, _equivalent_mm(name))
    wide = folder / "static" / "iphone" / "wide.png"
    monocular = folder / "static" / "monocular" / "wide.png"
    monocular.parent.mkdir()
    monocular.write_bytes(wide.read_bytes())
    truth = {image_name: camera_to_dict(camera) for _, camera, image_name in images}
    truth["mono__wide.png"] = truth["iphone__wide.png"]
    write_json(folder / "static" / "truth.json", truth)
    return len(truth)


def _images(config: StaticDemoConfig) -> list[tuple[str, Camera, str]]:
    """File below `static/`, camera, and image name in a prepared scene."""
    size = (config.width_px, config.height_px)
    side = config.lightfield_side
    views = _VIEWS_FOLDER.format(side=side)
    groups = (
        ("iphone", "iphone", devices.phone(*size)),
        ("stereo", "stereo", devices.stereo(*size)),
        (f"lightfield/{views}", "lf", devices.by_name(devices.lightfield(side, *size))),
        ("iphone_eval", "eval", devices.walk(config.eval_frames, *size)),
    )
    return [
        (f"{folder}/{name}.png", camera, f"{prefix}__{name}.png")
        for folder, prefix, cameras in groups
        for name, camera in cameras.items()
    ]


def _equivalent_mm(file: str) -> float | None:
    """Focal length in the EXIF data of a phone's image; other devices write none."""
    folder, name = file.split("/")[0], Path(file).stem
    if folder == "iphone":
        return devices.equivalent_mm(name)
    return devices.equivalent_mm("wide") if folder == "iphone_eval" else None


def _save(path: Path, image: Array, equivalent_mm: float | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if equivalent_mm is not None:
        exif[_EXIF_IFD] = {_EXIF_FOCAL_35MM: round(equivalent_mm)}
    levels = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(levels).save(path, exif=exif, compress_level=3)
