"""Real LPIPS weights, where they are at hand, and batches of random images."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.quality.config import WeightsConfig
from stages.quality.weights import collect


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as stage `weights` writes it, with the real alex and squeeze features."""
    assets = os.environ.get("SPLATFIX_TEST_ASSETS")
    if not assets:
        pytest.skip("SPLATFIX_TEST_ASSETS is unset: the real LPIPS weights are not here")
    folder = tmp_path_factory.mktemp("weights")
    collect(WeightsConfig(nets=("alex", "squeeze"), path=str(Path(assets, "weights"))), folder)
    return folder


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
