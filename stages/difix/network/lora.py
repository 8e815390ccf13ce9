"""LoRA of the VAE decoder's weights: W + scale * B A (Hu et al. 2021).

The adapted weights are computed and passed to the decoder, so no layer is replaced. Names, shapes
and scale are those of the published checkpoints, where every convolution and attention projection
of the decoder has LoRA, the skips included.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ALPHA = 8  # peft's default, also of the published training
_LAYERS = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out")
_LAYERS += ("to_k", "to_q", "to_v", "to_out.0")


def has_lora(name: str) -> bool:
    """Whether a layer of the VAE has LoRA factors, by its name.

    >>> has_lora("decoder.up_blocks.0.upsamplers.0.conv"), has_lora("post_quant_conv")
    (True, False)
    """
    ends = name.endswith(tuple("." + layer for layer in _LAYERS)) or ".skip_conv_" in name
    return name.startswith("decoder.") and ends


class Lora(nn.Module):
    """Factors A [r, ...] and B [out, r, ...] of each layer; `layers` has the weights by name."""

    def __init__(self, layers: Mapping[str, Tensor], rank: int):
        super().__init__()
        self.rank = rank
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in layers.items():
            outputs, inputs, *kernel = weight.shape
            factor = torch.empty(rank, inputs, *kernel, device=weight.device)
            self.a[_key(name)] = nn.Parameter(nn.init.normal_(factor, std=1 / rank))
            ones = [1] * len(kernel)
            self.b[_key(name)] = nn.Parameter(
                torch.zeros(outputs, rank, *ones, device=weight.device)
            )

    @property
    def names(self) -> list[str]:
        """Names of the adapted layers in the VAE."""
        return [key.replace("/", ".") for key in self.a]

    def factors(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B of one layer."""
        return self.a[_key(name)], self.b[_key(name)]

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`<layer>.weight` with its low-rank change, for every layer in `weights`."""
        return {f"{name}.weight": weight + self._delta(name) for name, weight in weights.items()}

    def _delta(self, name: str) -> Tensor:
        a, b = self.factors(name)
        product = b.flatten(1) @ a.flatten(1)
        return (ALPHA / self.rank) * product.view(len(b), *a.shape[1:])


def _key(name: str) -> str:
    # Names of parameters must not contain dots.
    return name.replace(".", "/")
