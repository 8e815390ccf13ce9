"""Poses of a static scene's images by VGGT, where it is installed, cached for later runs."""

import logging
from collections.abc import Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from stages.run.files import read_json, shaped, text_hash, write_json
from stages.scenes.cameras import Camera
from stages.scenes.config import VggtConfig
from stages.scenes.images import Pixels
from stages.scenes.scene import camera_to_dict, cameras_from_dict

_LOGGER = logging.getLogger(__name__)


def predict_poses(
    images: Mapping[str, Pixels], config: VggtConfig, cache: str
) -> dict[str, Camera] | None:
    """Cameras by name, or None, with a message, where VGGT is not installed.

    `cache` is a folder that keeps them by the images' content; empty for none.
    """
    key = text_hash(
        config.weights,
        str(config.image_px),
        *(part for name, image in images.items() for part in (name, sha256(image).hexdigest())),
    )
    cached = Path(cache, f"{key[:24]}.json") if cache else None
    if cached is not None and cached.is_file():
        _LOGGER.info("VGGT's poses are read from %s", cached)
        with shaped(cached, "cameras by name", "delete it; VGGT writes it again"):
            return cameras_from_dict(read_json(cached))
    if find_spec("vggt") is None:
        _LOGGER.warning(
            "VGGT is not installed: poses come from structure from motion. To use it, install "
            "github.com/facebookresearch/vggt in this environment and set vggt.weights.",
        )
        return None
    # Imported here because it imports torch.
    from stages.splat import vggt

    cameras = vggt.predict(images, vggt.load(config), config.image_px)
    if cached is not None:
        write_json(cached, {name: camera_to_dict(camera) for name, camera in cameras.items()})
    return cameras
