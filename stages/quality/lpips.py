"""LPIPS (Zhang et al. 2018, version 0.1): the only module that imports the lpips package.

The package brings the calibrated heads. The backbones are torchvision's ImageNet features, which
stage `weights` puts into data/weights; nothing is fetched here.
"""

import warnings
from pathlib import Path

import lpips as package
import torch
from torch import Tensor, nn

from stages.quality.batch import check_pair
from stages.quality.weights import load_features

_SMALLEST_PX = 32  # below it the last layers of a backbone have no pixel left


class Lpips(nn.Module):
    """Perceptual distance of image batches in [0, 1]; lower is nearer. Gradients flow to images.

    Images are scaled to [-1, 1] for every net, as the authors do. gsplat's `vgg` numbers skip that
    scaling and do not compare with these.
    """

    def __init__(self, folder: Path, net: str, device: str = "cpu"):
        """Load net `alex`, `vgg` or `squeeze`. Raises UserError when `folder` has none of it."""
        super().__init__()
        features = load_features(folder, net)
        # The package fills the backbone with random numbers first and warns of its own old calls.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._distance = package.LPIPS(net=net, pnet_rand=True, verbose=False)
        self._distance.net.load_state_dict(_in_slices(features, self._distance.net))
        self.requires_grad_(False).eval().to(device)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B]
        """Distance of each pair, float32."""
        return self._measure(a, b, spatial=False)[:, 0, 0, 0]

    def map(self, a: Tensor, b: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, 1, H, W]
        """Distance at each pixel: the layers' maps, enlarged to the image and added."""
        return self._measure(a, b, spatial=True)

    def _measure(self, a: Tensor, b: Tensor, spatial: bool) -> Tensor:
        check_pair(a, b, smallest_px=_SMALLEST_PX)
        self._distance.spatial = spatial
        return self._distance(a.float(), b.float(), normalize=True)


def _in_slices(features: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """torchvision's `<layer>.<name>` under the package's `slice<s>.<layer>.<name>`."""
    slices = {key.split(".", 1)[1]: key for key in backbone.state_dict()}
    return {slices[name]: value for name, value in features.items() if name in slices}
