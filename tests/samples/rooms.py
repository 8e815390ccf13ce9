"""Synthetic images of rooms with people, and changes of an image."""

import numpy as np
from PIL import Image

from benchmarks.leak_guard import Change, cropped, jpeg, lit, mirrored, resized, together

WIDTH, HEIGHT = 180, 240


def room_image(room: int, people: int, timestamp: int = 0) -> Image.Image:
    """Two people in a room; at another timestamp they stand elsewhere."""
    image = _texture(room, 1.0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for person in (0, 1):
        middle = np.array([140 - 6 * person, 60 + 55 * person + 9 * timestamp])
        inside = ((rows - middle[0]) / 70) ** 2 + ((columns - middle[1]) / 20) ** 2 < 1
        image[inside] = _texture(1000 + 2 * people + person, 0.6)[inside]
    return Image.fromarray(np.rint(255 * image).astype(np.uint8))


def _texture(seed: int, contrast: float) -> np.ndarray:
    """Smooth colours and fine ones, [H, W, 3] in [0, 1]."""
    random, total = np.random.default_rng(seed), np.full((HEIGHT, WIDTH, 3), 0.5)
    for cells in (3, 8, 20, 45):
        grid = random.uniform(-0.5, 0.5, (cells * 4 // 3, cells, 3))
        planes = [
            np.asarray(Image.fromarray(grid[..., k]).resize((WIDTH, HEIGHT), 3)) for k in range(3)
        ]
        total += contrast * 0.3 * np.stack(planes, axis=-1)
    return total.clip(0, 1)


CHANGES: dict[str, Change] = {
    "jpeg 95": jpeg(95),
    "jpeg 50": jpeg(50),
    "mirrored": mirrored,
    "a pixel less": cropped(1, 0, 0, 0),
    "five pixels less": cropped(0, 5, 5, 0),
    "height_px": resized(0.7),
    "half": resized(0.5),
    "brighter": lit(1.1),
    "darker": lit(0.9),
    "all": together(mirrored, cropped(2, 0, 1, 3), resized(0.8), lit(1.05), jpeg(60)),
}
