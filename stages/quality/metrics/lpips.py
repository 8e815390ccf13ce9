"""LPIPS (Zhang et al. 2018, version 0.1) with the calibrated heads of the lpips package.

Only the package's data is read. Importing it would import torchvision's models and with them
torch's compiler, 4 s in every evaluation; tests compare both. The backbones are torchvision's
ImageNet features, which stage `weights` copies to data/weights.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stages.quality.metrics.batch import check_images, check_pair
from stages.quality.metrics.weights import load_features

# Layers up to each compared activation, by torchvision's numbers; a ReLU follows each convolution.
_STAGES = {
    "alex": (("0",), ("pool", "3"), ("pool", "6"), ("8",), ("10",)),
    "vgg": (
        ("0", "2"),
        ("pool", "5", "7"),
        ("pool", "10", "12", "14"),
        ("pool", "17", "19", "21"),
        ("pool", "24", "26", "28"),
    ),
    "squeeze": (
        ("0",),
        ("pool", "3", "4"),
        ("pool", "6", "7"),
        ("pool", "9"),
        ("10",),
        ("11",),
        ("12",),
    ),
}
# Kernel, stride, and whether windows may extend beyond the border.
_POOLS = {"alex": (3, 2, False), "vgg": (2, 2, False), "squeeze": (3, 2, True)}
# Stride and padding of convolutions where they are not 1 and half the kernel.
_STRIDES = {("alex", "0"): (4, 2), ("squeeze", "0"): (2, 0)}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
LPIPS_PX = 32  # in smaller images the last layers have no pixels


class Features(nn.Module):
    """A frozen backbone; gradients flow to its input."""

    def __init__(self, net: str, tensors: dict[str, Tensor]):
        super().__init__()
        self.net = net
        # Names of buffers may not contain dots.
        for name, value in tensors.items():
            self.register_buffer(name.replace(".", "_"), value)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:  # [B, 3, H, W] in [0, 1]
        """Activations of 5 (alex, vgg) or 7 (squeeze) stages, each [B, C, h, w]."""
        hidden, activations = (images - self.mean) / self.std, []
        for stage in _STAGES[self.net]:
            for layer in stage:
                hidden = self._layer(layer, hidden)
            activations.append(hidden)
        return activations

    def _layer(self, layer: str, hidden: Tensor) -> Tensor:
        if layer == "pool":
            kernel, stride, ceil_mode = _POOLS[self.net]
            return F.max_pool2d(hidden, kernel, stride, ceil_mode=ceil_mode)
        if not hasattr(self, f"{layer}_squeeze_weight"):
            return self._convolution(layer, hidden)
        squeezed = self._convolution(f"{layer}_squeeze", hidden)
        sizes = ("expand1x1", "expand3x3")
        return torch.cat([self._convolution(f"{layer}_{size}", squeezed) for size in sizes], dim=1)

    def _convolution(self, name: str, hidden: Tensor) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        stride, padding = _STRIDES.get((self.net, name), (1, weight.shape[-1] // 2))
        return F.relu(F.conv2d(hidden, weight, bias, stride, padding))


class Lpips(nn.Module):
    """Perceptual distance of image batches in [0, 1]; lower is closer. Gradients flow to images.

    Images are normalised in the same way for every net, as by the authors. gsplat's `vgg` values
    skip a part of this and do not compare with these.
    """

    def __init__(self, folder: Path, net: str, device: str = "cpu"):
        """Load net `alex`, `vgg` or `squeeze`. Raises UserError when `folder` has none of it."""
        super().__init__()
        self.features = Features(net, load_features(folder, net))
        for index, head in enumerate(_heads(net)):
            self.register_buffer(f"head_{index}", head)
        self.to(device)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
        """Distance of each pair, float32."""
        return self.between(*self.activations(a, b))

    def activations(self, a: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Activations of two batches [B, 3, H, W] in [0, 1]."""
        check_pair(a, b)
        return self.activations_of(a), self.activations_of(b)

    def activations_of(self, images: Tensor) -> list[Tensor]:
        """Activations of a batch [B, 3, H, W] in [0, 1]."""
        check_images(images, smallest_px=LPIPS_PX)
        return self.features(images.float())

    def between(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance of each pair from its activations, [B]; one image of `a` pairs with all."""
        layers = [distance.mean(dim=(1, 2, 3)) for distance in self._distances(a, b)]
        return torch.stack(layers).sum(dim=0)

    def map(self, a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, 1, H, W]
        """Distance at each pixel: the sum of the layers' upsampled maps."""
        size = a.shape[-2:]
        distances = self._distances(*self.activations(a, b))
        layers = [F.interpolate(one, size, mode="bilinear") for one in distances]
        return torch.stack(layers).sum(dim=0)

    def _distances(self, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        """Weighted squared difference of each stage's unit activations, [B, 1, h, w]."""
        return [
            F.conv2d((_unit(x) - _unit(y)).square(), getattr(self, f"head_{index}"))
            for index, (x, y) in enumerate(zip(a, b, strict=True))
        ]


def _unit(activations: Tensor) -> Tensor:
    # At all zeros the gradient of the root is NaN; the ReLU before it blocks it.
    return activations / (activations.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _heads(net: str) -> list[Tensor]:
    """Weights [1, C, 1, 1] of each stage, from the package's own file."""
    package = find_spec("lpips")
    assert package is not None, "the lpips package is not installed"
    path = Path(str(package.origin)).parent / "weights" / "v0.1" / f"{net}.pth"
    heads = torch.load(path, map_location="cpu", weights_only=True)
    return [heads[f"lin{index}.model.1.weight"] for index in range(len(_STAGES[net]))]
