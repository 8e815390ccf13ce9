"""Batches of random images, and LPIPS backbones with random weights."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.quality.metrics.backbones import BACKBONES
from stages.run.files import write_json


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """`images(batch, height, width, seed)`: smooth random images with some noise, in [0, 1]."""

    def build(batch: int = 2, height: int = 40, width: int = 48, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(batch, 3, 5, 6, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
        noise = torch.rand(batch, 3, height, width, generator=generator)
        return 0.85 * smooth + 0.15 * noise

    return build


@pytest.fixture(scope="session")
def random_backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`random_backbone(net)`: a folder as stage `weights` writes it, of made-up features.

    Their size keeps activations alive through all layers (He et al. 2015).
    """

    def build(net: str) -> Path:
        folder = tmp_path_factory.mktemp(net)
        generator = torch.Generator().manual_seed(0)
        features = {}
        for name, shape in BACKBONES[net].shapes.items():
            size = (2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
            features[name] = size * torch.randn(shape, generator=generator)
        save_file(features, folder / f"{net}.safetensors")
        write_json(folder / "weights.json", {net: {"found": True, "sha256": "0" * 64}})
        return folder

    return build
