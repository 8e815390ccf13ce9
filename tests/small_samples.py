"""Small datasets of random images for the tests of samples and of tuning."""

import json
from pathlib import Path

import numpy as np

from stages.run import layout
from stages.samples.index import SamplePaths, warped_kind
from stages.scenes.images import image_size, write_png

PATHS = SamplePaths(layout.pairs, layout.pairs_metrics, layout.scene)


def write_warped(path: Path, count: int) -> list[np.ndarray]:
    """Warped images [H, W, 4] beside the sample with this `image`, of 8 bits; returns them."""
    width, height = image_size(path)
    levels = np.random.default_rng(count).integers(0, 256, (count, height, width, 4))
    images = [(one / 255).astype(np.float32) for one in levels]
    for number, image in enumerate(images, 1):
        write_png(path.parent.parent / warped_kind(number) / path.name, image)
    return images


def write_dataset(
    root: Path,
    train: int = 4,
    test: int = 2,
    size: tuple[int, int] = (48, 64),
    prompt: str = "remove degradation",
    reference: bool = True,
) -> Path:
    """A dataset in DiFix's format of random images, each with a noisy render; its json."""
    width, height = size
    random = np.random.default_rng(0)
    content: dict[str, dict] = {"train": {}, "test": {}}
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            coarse = random.random((4, 3, 3))
            clean = np.kron(coarse, np.ones((-(-height // 4), -(-width // 3), 1)))[:height, :width]
            images = {"target_image": clean, "ref_image": clean[:, ::-1]}
            images["image"] = np.clip(clean + 0.1 * random.standard_normal(clean.shape), 0, 1)
            entry: dict[str, str] = {"prompt": prompt}
            for key, image in images.items():
                path = root / "images" / f"{split}{index}_{key}.png"
                write_png(path, image.astype(np.float32))
                entry[key] = str(path)
            if not reference:
                del entry["ref_image"]
            content[split][f"{split}{index}"] = entry
    path = root / "dataset.json"
    path.write_text(json.dumps(content))
    return path
