"""A stand-in of how NVIDIA's trainer reads a dataset, as their repository documents it."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = (1024, 576)


class NvidiaDataset:
    """Samples of a split: paths are opened as they are, images stretched to one size."""

    def __init__(self, path: Path, split: str):
        self.samples = json.loads(path.read_text())[split]
        self.names = list(self.samples)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        sample = self.samples[self.names[index]]
        views = [_opened(sample["image"])]
        if "ref_image" in sample:
            views.append(_opened(sample["ref_image"]))
        return {
            "conditioning_pixel_values": torch.stack(views),
            "output_pixel_values": _opened(sample["target_image"]),
            "caption": sample["prompt"],
        }


def _opened(path: str) -> Tensor:
    """An image [3, H, W] in [-1, 1]."""
    levels = np.asarray(Image.open(path).convert("RGB").resize(SIZE))
    return torch.from_numpy(levels.copy()).permute(2, 0, 1) / 127.5 - 1
