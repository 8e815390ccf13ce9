"""Reference mixing: self-attention of a target view over its reference views too.

DiFix has no layer of its own for this: self-attention runs over the tokens of all views of a
sample. All other layers of the UNet process each view alone. B samples of V views enter as B * V
images, the views of a sample side by side and the target first; n tokens of d channels per view.

`mutual`: every view attends to all views, as the published weights were trained.
`one_way`: the target attends to all views, each reference to itself. A reference's keys and values
then depend on the reference alone, so they can be cached for many targets.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Mixing = Literal["mutual", "one_way"]
# Keys and values [B, n, d] of the reference views, by layer.
KvCache = dict[str, tuple[Tensor, Tensor]]


class MixedAttention:
    """Attention processor for diffusers' UNet; without further arguments, plain attention.

    The arguments come through `cross_attention_kwargs`, not through state, so that gradient
    checkpointing, which runs a layer twice, passes the same.
    """

    def __init__(self, layer: str):
        self.layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # [B * V, n, d]
        encoder_hidden_states: Tensor | None = None,  # [B * V, m, e]
        attention_mask: Tensor | None = None,
        views: int = 1,
        mixing: Mixing = "mutual",
        write_cache: KvCache | None = None,
        read_cache: KvCache | None = None,
    ) -> Tensor:
        """Tokens [B * V, n, d] after attention and its output projection.

        Self-attention stores its keys and values in `write_cache`, and attends to those in
        `read_cache` too.
        """
        assert attention_mask is None, "a mask has no meaning across views"
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        if encoder_hidden_states is None:
            if write_cache is not None:
                write_cache[self.layer] = key, value
            if read_cache is not None:
                key, value = _with_cached(key, value, read_cache[self.layer])
            if views > 1:
                mixed = _MIXINGS[mixing](query, key, value, attn.heads, views)
                return attn.to_out[1](attn.to_out[0](mixed))
        return attn.to_out[1](attn.to_out[0](attend(query, key, value, attn.heads)))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention over tokens [b, n, d] and [b, m, d]."""
    split = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def install(unet: Any) -> None:
    """Give every attention layer of a UNet its processor."""
    layers = unet.attn_processors
    unet.set_attn_processor({name: MixedAttention(name) for name in layers})


def joined_cache(cache: Mapping[str, tuple[Tensor, Tensor]], views: int) -> KvCache:
    """The cache of B * V references as tokens [B, V * n, d] for B targets."""
    return {
        layer: (_joined(key, views), _joined(value, views)) for layer, (key, value) in cache.items()
    }


def _mutual(query: Tensor, key: Tensor, value: Tensor, heads: int, views: int) -> Tensor:
    joined = (_joined(x, views) for x in (query, key, value))
    return attend(*joined, heads).unflatten(1, (views, -1)).flatten(0, 1)


def _one_way(query: Tensor, key: Tensor, value: Tensor, heads: int, views: int) -> Tensor:
    queries, keys, values = (x.unflatten(0, (-1, views)) for x in (query, key, value))
    target = attend(queries[:, 0], keys.flatten(1, 2), values.flatten(1, 2), heads)
    alone = (x[:, 1:].flatten(0, 1) for x in (queries, keys, values))
    references = attend(*alone, heads).unflatten(0, (-1, views - 1))
    return torch.cat([target[:, None], references], dim=1).flatten(0, 1)


_MIXINGS = {"mutual": _mutual, "one_way": _one_way}


def _joined(tokens: Tensor, views: int) -> Tensor:
    """Tokens of all views of a sample, concatenated: [B * V, n, d] to [B, V * n, d]."""
    return tokens.unflatten(0, (-1, views)).flatten(1, 2)


def _with_cached(key: Tensor, value: Tensor, cached: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return torch.cat([key, cached[0]], dim=1), torch.cat([value, cached[1]], dim=1)
