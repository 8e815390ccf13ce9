"""A viewer of one scene's Gaussians as one HTML file: plain WebGL2, no library, no network."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.pages.template import Markup, render_template
from stages.scenes.cameras import Camera
from stages.scenes.poses.camera_paths import focus_and_up


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


def viewer_page(
    scene: str, models: Sequence[Model], cameras: Mapping[str, Mapping[str, Camera]]
) -> str:
    """The viewer; `cameras` by role (source, target) and name, in the frame of the Gaussians."""
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
        cameras={role: list(group) for role, group in cameras.items()},
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
