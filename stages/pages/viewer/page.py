"""A viewer of one scene's Gaussians as one HTML file: plain WebGL2, no library, no network."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.pages.image_urls import image_url, size_within
from stages.pages.template import Markup, render_template
from stages.scenes.cameras import Camera
from stages.scenes.images import resize
from stages.scenes.poses.camera_paths import focus_and_up
from stages.scenes.view import View

_QUALITY = 80  # of WebP
# What a reader must know of a camera's role.
_ROLES = {"source": "training", "target": "held out of training"}


@dataclass(frozen=True, eq=False)
class Model:
    """Gaussians of one method and timestamp, packed as `stages.splat.viewing.packing` says."""

    method: str
    timestamp: str
    count: int
    low: Sequence[float]
    high: Sequence[float]
    data: bytes
    antialiased: bool
    background: Sequence[float]  # RGB in [0, 1]


def truth_images(views: Iterable[View], max_side_px: int) -> dict[str, dict[str, str]]:
    """Data URLs of the ground truth by camera and timestamp; none with `max_side_px` 0."""
    images: dict[str, dict[str, str]] = {}
    for view in views if max_side_px else ():
        size = size_within(view.camera.width, view.camera.height, max_side_px)
        url = image_url(resize(view.pixels(), *size), _QUALITY)
        images.setdefault(view.name, {})[view.timestamp] = url
    return images


def viewer_page(
    scene: str,
    models: Sequence[Model],
    cameras: Mapping[str, Mapping[str, Camera]],
    truth: Mapping[str, Mapping[str, str]],
) -> str:
    """The viewer.

    Args:
        scene: Its name.
        models: Gaussians of every method and timestamp.
        cameras: By role (source, target) and name, in the frame of the Gaussians.
        truth: Data URLs of the ground truth by camera and timestamp.
    """
    all_cameras = [camera for group in cameras.values() for camera in group.values()]
    focus, up = focus_and_up(all_cameras)
    content = {
        "scene": scene,
        "focus": focus.tolist(),
        "up": up.tolist(),
        "distance": float(np.median([np.linalg.norm(one.centre - focus) for one in all_cameras])),
        "cameras": [
            _camera(role, camera) for role, group in cameras.items() for camera in group.values()
        ],
        "models": [_model(model) for model in models],
        "truth": truth,
        "roles": _ROLES,
    }
    # Escaped, so that no text in the data can end its script element.
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    methods = list(dict.fromkeys(model.method for model in models))
    times = sorted({model.timestamp for model in models})
    return render_template(
        Path(__file__).parent,
        {},
        scene=scene,
        methods=methods,
        times=times,
        cameras={_ROLES[role]: list(group) for role, group in cameras.items()},
        has_truth=bool(truth),
        data=Markup(text),
    )


def _camera(role: str, camera: Camera) -> dict[str, Any]:
    return {
        "name": camera.name,
        "role": role,
        "pose": np.round(camera.cam_from_world[:3], 7).tolist(),
        "K": [camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]],
        "size": [camera.width, camera.height],
    }


def _model(model: Model) -> dict[str, Any]:
    return {
        "method": model.method,
        "time": model.timestamp,
        "count": model.count,
        "low": list(model.low),
        "high": list(model.high),
        "antialiased": model.antialiased,
        "background": list(model.background),
        "data": base64.b64encode(model.data).decode(),
    }
