"""Images inside pages, as data URLs."""

import base64
import io

import numpy as np
from PIL import Image

from stages.scenes.images import Pixels


def image_url(image: Pixels, quality: int) -> str:
    """An image [H, W, 3] in [0, 1] as a `data:` URL of WebP; values outside are clipped."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(levels).save(encoded, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()


def size_within(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """A size of the same aspect ratio whose longer side is at most `max_side_px`.

    >>> size_within(940, 1280, 512), size_within(192, 256, 512)
    ((376, 512), (192, 256))
    """
    share = min(1.0, max_side_px / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))
