"""Poses of a static scene's photographs by VGGT, where it is installed, kept for the next run."""

import sys
from collections.abc import Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from stages.run.files import read_json, shaped, text_hash, write_json
from stages.scenes.cameras import Camera
from stages.scenes.config import VggtConfig
from stages.scenes.images import Pixels
from stages.scenes.scene import camera_to_dict, cameras_from_dict


def predicted(
    images: Mapping[str, Pixels], config: VggtConfig, cache: str
) -> dict[str, Camera] | None:
    """Cameras by name, or None, said once, where VGGT is not installed.

    `cache` is a folder that keeps them by the photographs' content; empty keeps nothing.
    """
    key = text_hash(
        config.weights, str(config.image_px),
        *(part for name, image in images.items() for part in (name, sha256(image).hexdigest())),
    )  # fmt: skip
    kept = Path(cache, f"{key[:24]}.json") if cache else None
    if kept is not None and kept.is_file():
        print(f"VGGT's poses are those of {kept}", flush=True)
        with shaped(kept, "cameras by name", "delete it; VGGT writes it again"):
            return cameras_from_dict(read_json(kept))
    if find_spec("vggt") is None:
        print(
            "VGGT is not installed: structure from motion gives the poses. With "
            "github.com/facebookresearch/vggt in this environment, and its weights named in "
            "vggt.weights, it would.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return None
    # It brings torch along, which nothing else here needs.
    from stages.splat import vggt

    cameras = vggt.predict(images, vggt.load(config), config.image_px)
    if kept is not None:
        write_json(kept, {name: camera_to_dict(camera) for name, camera in cameras.items()})
    return cameras
