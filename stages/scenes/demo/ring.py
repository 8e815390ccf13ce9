"""Eight static cameras around the people, named as Hi4D's.

Hi4D's are on a full ring, 45 degrees apart; these are 15 degrees apart on an arc. Measured with
SIFT on 192x256 images: two source cameras with a target camera between them share 29 to 80 verified
matches on the arc, and no correct ones on the ring.
"""

import numpy as np

from stages.scenes.cameras import Camera, look_at

NAMES = ("4", "16", "28", "40", "52", "64", "76", "88")
_SPACING_DEG = 15.0
_FIELD_OF_VIEW_DEG = 54.0  # vertical


def ring(width: int, height: int) -> list[Camera]:
    """The cameras at an image size, px; heights, distances and intrinsics differ slightly."""
    focal = 0.5 * height / np.tan(np.radians(_FIELD_OF_VIEW_DEG) / 2)
    cameras = []
    for number, name in enumerate(NAMES):
        angle = np.radians((number - (len(NAMES) - 1) / 2) * _SPACING_DEG)
        radius, eye_height = (
            2.75 + 0.10 * np.cos(2.3 * number),
            1.45 + 0.35 * np.sin(1.9 * number),
        )
        eye = [radius * np.sin(angle), eye_height, radius * np.cos(angle)]
        own_focal = focal * (1 + 0.02 * np.sin(3.1 * number))
        middle = ((0.5 + 0.01 * np.cos(number)) * width, (0.5 + 0.01 * np.sin(number)) * height)
        K = np.array([[own_focal, 0, middle[0]], [0, own_focal, middle[1]], [0, 0, 1]])
        pose = look_at(eye, [0.05 * np.sin(number), 0.95, 0.0], [0, 1, 0])
        cameras.append(Camera(name, K, pose, width, height))
    return cameras
