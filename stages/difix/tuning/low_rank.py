"""Low-rank changes of a fixer's weights: W + B A (Hu et al. 2021), merged when training ends.

Not the published LoRA of the VAE decoder (`network.lora`), which is and stays a part of a fixer:
layers that have it are tuned by its own factors. Nothing else is trained, so biases and the weights
of normalisations stay as they are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.difix.network.model import Fixer
from stages.samples.batches import seeded

_OF_LORA = "lora."
_MATRIX_NDIM = 2


class _Change(nn.Module):
    """W + B A, where A has a row and B a column per rank; W [out, ...] counts as [out, in]."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator):
        super().__init__()
        outputs, inputs = len(weight), weight[0].numel()
        rank = min(rank, outputs, inputs)
        # So the first step of Adam moves a weight about as far as it would move it directly.
        a = torch.randn(rank, inputs, generator=generator) / rank**0.5
        self.a = nn.Parameter(a.to(weight.device))
        self.b = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, in float32: a rounded product would lose small changes."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.b @ self.a).reshape(weight.shape)


class LowRank:
    """Factors beside the trained matrices and convolutions of a fixer, which are frozen.

    Args:
        fixer: whose layers get them.
        parameters: what would be trained without, by name.
        rank: of the changes, at most that of the matrix.
        seed: of the factors A; B is 0, so that the fixer is unchanged at first.
    """

    def __init__(self, fixer: Fixer, parameters: Mapping[str, nn.Parameter], rank: int, seed: int):
        self.fixer, self._layers = fixer, dict[str, nn.Module]()
        self._order: dict[str, list[str]] = {}
        published = fixer._lora_layers().values() if fixer.lora is not None else ()
        with_lora = {id(weight) for weight in published}
        own, names = [], []
        for name, parameter in parameters.items():
            if name.startswith(_OF_LORA):
                own.append(name)
            else:
                parameter.requires_grad_(False)
                if parameter.ndim >= _MATRIX_NDIM and id(parameter) not in with_lora:
                    names.append(name)
        for name in names:
            path, _, key = name.rpartition(".")
            layer = fixer.get_submodule(path)
            generator = seeded(seed, "low rank", name)
            self._layers[name], self._order[name] = layer, list(layer._parameters)
            parametrize.register_parametrization(
                layer, key, _Change(parameters[name], rank, generator)
            )
        self._own = own
        self.parameters = {
            name: parameter
            for name, parameter in fixer.named_parameters()
            if parameter.requires_grad
        }

    def weights(self) -> dict[str, Tensor]:
        """The weights that are tuned, as the fixer computes with them, by their plain names."""
        owned = {name: self.fixer.get_parameter(name) for name in self._own}
        return owned | {
            name: getattr(layer, name.rpartition(".")[2]) for name, layer in self._layers.items()
        }

    def merge(self) -> None:
        """Add the changes to the weights, which are plain parameters again."""
        for name, layer in self._layers.items():
            parametrize.remove_parametrizations(layer, name.rpartition(".")[2])
            for key in self._order[name]:  # a state dict keeps its order
                layer._parameters[key] = layer._parameters.pop(key)
