"""Writes one embedded static scene as a photographer would bring it home.

`static/` holds monocular/, iphone/, stereo/, lightfield/ and iphone_eval/, and truth.json with the
cameras that took them, by the names that a prepared scene has. The same seed gives the same bytes.
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
from stages.scenes.demo.sequence import cast, parse, posed
from stages.scenes.scene import camera_to_dict
from stages.scenes.static.config import StaticDemoConfig

# Of one pixel pitch; PlenoptiCam names the folder of its views by the number of views a side.
_VIEWS_FOLDER = "viewpoints_{side}px"
_PREFIX = "static_"
_EXIF_IFD, _EXIF_FOCAL_35MM = 0x8769, 0xA405


def write_static_scene(scene: str, config: StaticDemoConfig, folder: Path) -> int:
    """Photograph a scene such as static_pair02_talk; returns the number of images."""
    if not scene.startswith(_PREFIX):
        raise UserError(
            "static_demo.scenes", repr(scene), expected="a name such as static_pair02_talk"
        )
    pair, action = parse(f"hi4d_{scene.removeprefix(_PREFIX)}")
    people = cast(pair, config.seed)
    furnished, textures = room(pair, config.seed)
    textures = textures | people[0].textures | people[1].textures
    geometry = raytrace.join(furnished + posed(people, action, 0.4, pair))
    world = raytrace.dress(geometry, light(geometry), raytrace.atlas(textures))
    shots = _shots(config)
    for number, (place, camera, _) in enumerate(shots):
        image = raytrace.trace(world, camera, config.samples, config.seed + number)[0]
        _save(folder / "static" / place, image, _equivalent_mm(place))
    wide = folder / "static" / "iphone" / "wide.png"
    mono = folder / "static" / "monocular" / "wide.png"
    mono.parent.mkdir()
    mono.write_bytes(wide.read_bytes())
    truth = {name: camera_to_dict(camera) for _, camera, name in shots}
    truth["mono__wide.png"] = truth["iphone__wide.png"]
    write_json(folder / "static" / "truth.json", truth)
    return len(truth)


def _shots(config: StaticDemoConfig) -> list[tuple[str, Camera, str]]:
    """File below `static/`, camera, and the image's name in a prepared scene."""
    size = (config.width_px, config.height_px)
    side = config.lightfield_side
    views = _VIEWS_FOLDER.format(side=side)
    groups = (
        ("iphone", "iphone", devices.phone(*size)),
        ("stereo", "stereo", devices.stereo(*size)),
        (f"lightfield/{views}", "lf", devices.named(devices.lightfield(side, *size))),
        ("iphone_eval", "eval", devices.walk(config.eval_frames, *size)),
    )
    return [
        (f"{folder}/{name}.png", camera, f"{prefix}__{name}.png")
        for folder, prefix, cameras in groups
        for name, camera in cameras.items()
    ]


def _equivalent_mm(place: str) -> float | None:
    """What the EXIF data of a phone's photograph says; other devices write none."""
    folder, name = place.split("/")[0], Path(place).stem
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
