"""The room and its cameras: a closed, furnished box, and eight static cameras on an arc.

Hi4D's cameras stand on a full ring; these stand 18 degrees apart, so that photographs of
neighbours at this small size share enough for feature matching and for six-view splats.
"""

import numpy as np

from stages.scenes.cameras import Camera, look_at
from stages.scenes.demo.meshes import Mesh, box, quad
from stages.scenes.demo.textures import PICTURES

CAMERAS = ("4", "16", "28", "40", "52", "64", "76", "88")
_SPACING_DEG = 18.0
_HALF, _HEIGHT = 3.0, 2.7  # metres
_FIELD_OF_VIEW_DEG = 66.0  # vertical


def cameras(width: int, height: int) -> list[Camera]:
    """Eight cameras at the given size, px; principal points and focals differ a little."""
    focal = 0.5 * height / np.tan(np.radians(_FIELD_OF_VIEW_DEG) / 2)
    made = []
    for number, name in enumerate(CAMERAS):
        angle = np.radians((number - (len(CAMERAS) - 1) / 2) * _SPACING_DEG)
        radius, eye_height = 2.65 + 0.12 * np.cos(2.3 * number), 1.45 + 0.38 * np.sin(1.9 * number)
        eye = [radius * np.sin(angle), eye_height, radius * np.cos(angle)]
        own_focal = focal * (1 + 0.02 * np.sin(3.1 * number))
        centre = (
            width / 2 + 0.01 * width * np.cos(number),
            height / 2 + 0.01 * height * np.sin(number),
        )
        K = np.array([[own_focal, 0, centre[0]], [0, own_focal, centre[1]], [0, 0, 1]])
        pose = look_at(eye, [0.06 * np.sin(number), 0.92, 0.0], [0, 1, 0])
        made.append(Camera(name, K, pose, width, height))
    return made


def room(pair: int) -> list[Mesh]:
    """Floor, ceiling, walls with posters, and furniture; pictures change places by pair."""
    s, h = _HALF, _HEIGHT
    # One tile covers a whole surface: a pattern that repeats is matched to its own neighbour.
    ground = "gravel" if pair % 2 else "grass"
    shell = [
        quad([-s, 0, -s], [2 * s, 0, 0], [0, 0, 2 * s], ground, 2 * s),
        quad([-s, h, s], [2 * s, 0, 0], [0, 0, -2 * s], "gravel", 3 * s),
        quad([-s, h, -s], [2 * s, 0, 0], [0, -h, 0], "brick", 2 * s),
        quad([s, h, s], [-2 * s, 0, 0], [0, -h, 0], "gravel", 2.5 * s),
        quad([-s, h, s], [0, 0, -2 * s], [0, -h, 0], "grass", 2.2 * s),
        quad([s, h, -s], [0, 0, 2 * s], [0, -h, 0], "brick", 2.6 * s),
    ]
    return shell + _pictures(pair)


def _pictures(pair: int) -> list[Mesh]:
    """Posters, a rug and furniture, each under a photograph of its own."""
    turned = np.roll(PICTURES, pair)
    s = _HALF - 0.01
    hung = [
        ([-2.5, 2.35, -s], [1.5, 0, 0], [0, -1.3, 0]),
        ([-0.7, 2.2, -s], [1.4, 0, 0], [0, -1.1, 0]),
        ([1.05, 2.4, -s], [1.6, 0, 0], [0, -1.4, 0]),
        ([-s, 2.3, 1.2], [0, 0, -1.6], [0, -1.3, 0]),
        ([-s, 2.2, -0.9], [0, 0, -1.5], [0, -1.2, 0]),
        ([s, 2.3, -1.9], [0, 0, 1.6], [0, -1.3, 0]),
        ([s, 2.2, 0.2], [0, 0, 1.5], [0, -1.2, 0]),
        # The rug puts corners under the people's feet.
        ([-0.95, 0.005, -0.8], [1.9, 0, 0], [0, 0, 1.6]),
    ]
    stood = [
        ([-2.6, 0, -2.7], [-1.7, 0.75, -2.1]),
        ([1.5, 0, -2.6], [2.3, 0.55, -1.9]),
        ([-2.75, 0, -1.5], [-2.2, 0.95, -0.8]),
        ([2.2, 0, -1.5], [2.75, 0.8, -0.8]),
        ([-0.35, 0, -2.8], [0.45, 0.45, -2.3]),
    ]
    flat = [quad(*place, turned[k], 0) for k, place in enumerate(hung)]
    solid = [box(*place, turned[len(hung) + k], 0.9) for k, place in enumerate(stood)]
    return flat + [face for faces in solid for face in faces]
