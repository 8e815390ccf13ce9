"""Convolutional backbones of LPIPS: torchvision's features trained on ImageNet.

All files of them (whole classifiers, or their `.features` with or without that prefix) are read as
the tensors `<layer>.weight` and `<layer>.bias`, float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.run.errors import UserError

Shapes = dict[str, tuple[int, ...]]
_Convolution = tuple[str, int, int, int]  # name, outputs, inputs, kernel


@dataclass(frozen=True)
class Backbone:
    """A net: torchvision's file name, patterns of other names, shapes of its features."""

    published: str
    patterns: tuple[str, ...]
    shapes: Shapes


def find_file(net: str, folder: Path) -> Path | None:
    """The file of a net in a folder, by name; None when there is none."""
    backbone = BACKBONES[net]
    patterns = (backbone.published, *backbone.patterns)
    return next((path for pattern in patterns for path in _files(folder, pattern)), None)


def read_features(path: Path, net: str) -> dict[str, Tensor]:
    """Features from a file. Raises UserError when it is broken or of another net."""
    tensors = {key.removeprefix("features."): value for key, value in _load(path).items()}
    return checked(tensors, path, net)


def checked(tensors: Mapping[str, object], path: Path, net: str) -> dict[str, Tensor]:
    """The features of a net among tensors of a file, as float32.

    Raises UserError when one is missing or has another shape.
    """
    shapes = BACKBONES[net].shapes
    features = {}
    for name, shape in shapes.items():
        value = tensors.get(name)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else "nothing"
            raise UserError(
                path,
                f"not the features of {net}: {name} is {got}",
                expected=f"{name} of shape {shape}, as in {BACKBONES[net].published}",
            )
        features[name] = value.float().contiguous()
    return features


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _load(path: Path) -> dict[str, object]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    # Truncated files and files of other kinds raise a dozen kinds of errors.
    except Exception as error:
        raise UserError(
            path,
            f"not a readable weights file ({type(error).__name__})",
            expected="a state dict of torchvision, or safetensors",
            fix="delete the file, or download it again",
        ) from error
    if not isinstance(tensors, dict):
        raise UserError(path, f"holds a {type(tensors).__name__}", expected="a state dict")
    return {str(key): value for key, value in tensors.items()}


def _backbone(published: str, short: str, layers: list[_Convolution]) -> Backbone:
    stem = published.rsplit("-", 1)[0].removesuffix("-owt")
    patterns = (f"{stem}-*.*", *(f"{name}{end}.*" for name in (stem, short) for end in _ENDINGS))
    shapes: Shapes = {}
    for name, outputs, inputs, kernel in layers:
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"{name}.bias"] = (outputs,)
    return Backbone(published, patterns, shapes)


def _fire(layer: int, inputs: int, squeezed: int, expanded: int) -> list[_Convolution]:
    """The three convolutions of a fire module of SqueezeNet (Iandola et al. 2016)."""
    return [
        (f"{layer}.squeeze", squeezed, inputs, 1),
        (f"{layer}.expand1x1", expanded, squeezed, 1),
        (f"{layer}.expand3x3", expanded, squeezed, 3),
    ]


_ENDINGS = ("", "_features")
_ALEX = [
    ("0", 64, 3, 11),
    ("3", 192, 64, 5),
    ("6", 384, 192, 3),
    ("8", 256, 384, 3),
    ("10", 256, 256, 3),
]
_VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_VGG = [
    (str(layer), outputs, inputs, 3)
    for layer, inputs, outputs in zip(_VGG_LAYERS, _VGG_WIDTHS, _VGG_WIDTHS[1:], strict=False)
]
_SQUEEZE = [
    ("0", 64, 3, 3),
    *_fire(3, 64, 16, 64),
    *_fire(4, 128, 16, 64),
    *_fire(6, 128, 32, 128),
    *_fire(7, 256, 32, 128),
    *_fire(9, 256, 48, 192),
    *_fire(10, 384, 48, 192),
    *_fire(11, 384, 64, 256),
    *_fire(12, 512, 64, 256),
]
BACKBONES = {
    "alex": _backbone("alexnet-owt-7be5be79.pth", "alex", _ALEX),
    "vgg": _backbone("vgg16-397923af.pth", "vgg", _VGG),
    "squeeze": _backbone("squeezenet1_1-b8a52dc0.pth", "squeeze", _SQUEEZE),
}
