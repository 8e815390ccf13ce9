"""The autoencoder of Stable Diffusion with skip connections from encoder to decoder.

Two pure functions over diffusers' own AutoencoderKL, which is not modified: the encoder's
activations are returned and passed on, not stored in the model. Images [B, 3, H, W] are in [-1, 1]
here.

A VAE of L levels halves the image L - 1 times. Activations are the inputs of its L down blocks,
finest first. The decoder's up blocks take them in the opposite order: each is added to the input of
its block after a 1x1 convolution of its own (a skip).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

Weights = Mapping[str, Tensor]  # by the names of the published checkpoints


def skip_name(index: int) -> str:
    """Name of a skip in the published checkpoints.

    >>> skip_name(0)
    'decoder.skip_conv_1'
    """
    return f"decoder.skip_conv_{index + 1}"


def build_skips(channels: Sequence[int]) -> nn.ModuleList:
    """1x1 convolutions without bias, coarsest first, for the VAE's channels, finest first."""
    encoder = [channels[0], *channels[:-1]]  # inputs of the down blocks
    decoder = [channels[-1], *channels[:0:-1]]  # inputs of the up blocks
    pairs = zip(reversed(encoder), decoder, strict=True)
    return nn.ModuleList(nn.Conv2d(source, target, 1, bias=False) for source, target in pairs)


def encode(
    vae: Any, images: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The posterior's mean [B, c, h, w], with a generator a sample of it; and activations."""
    encoder, activations = vae.encoder, []
    hidden = encoder.conv_in(images)
    for block in encoder.down_blocks:
        activations.append(hidden)
        hidden = block(hidden)
    hidden = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(hidden))))
    mean, log_variance = vae.quant_conv(hidden).chunk(2, dim=1)
    if generator is None:
        return mean, activations
    deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))
    noise = torch.randn(mean.shape, generator=generator, device=generator.device)
    return mean + deviation * noise.to(mean), activations


def decode(
    vae: Any,
    skips: nn.ModuleList,
    latent: Tensor,  # [B, c, h, w]
    activations: Sequence[Tensor],
    *,
    gamma: float = 1.0,
    weights: Weights | None = None,
    checkpointing: bool = False,
) -> Tensor:
    """Images [B, 3, H, W].

    Args:
        vae: diffusers' AutoencoderKL.
        skips: as from `build_skips`.
        latent: [B, c, h, w].
        activations: of the encoder, finest first.
        gamma: scale of the skips' outputs.
        weights: replacements for weights of the VAE and the skips, by name.
        checkpointing: recompute activations inside blocks for the gradient, to save memory.
    """
    weights = weights or {}

    def run(module: nn.Module, name: str, hidden: Tensor) -> Tensor:
        if checkpointing and torch.is_grad_enabled():
            return checkpointed(_call, module, name, weights, hidden)
        return _call(module, name, weights, hidden)

    decoder = vae.decoder
    hidden = _call(vae.post_quant_conv, "post_quant_conv", weights, latent)
    hidden = _call(decoder.conv_in, "decoder.conv_in", weights, hidden)
    hidden = run(decoder.mid_block, "decoder.mid_block", hidden)
    for index, (block, skip) in enumerate(zip(decoder.up_blocks, skips, strict=True)):
        activation = activations[-1 - index]
        activation = activation if gamma == 1 else gamma * activation
        added = _call(skip, skip_name(index), weights, activation)
        hidden = run(block, f"decoder.up_blocks.{index}", hidden + added)
    hidden = decoder.conv_act(decoder.conv_norm_out(hidden))
    return _call(decoder.conv_out, "decoder.conv_out", weights, hidden)


def checkpointed(function: Callable[..., Any], *args: Any) -> Any:
    """The function's result; its activations are recomputed for the gradient.

    Nothing inside is random, and the state of a generator cannot be read while a CUDA graph is
    recorded.
    """
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def _call(module: nn.Module, name: str, weights: Weights, hidden: Tensor) -> Tensor:
    """Run a module with its weights replaced by those under its name, if there are any."""
    prefix = name + "."
    own = {key.removeprefix(prefix): one for key, one in weights.items() if key.startswith(prefix)}
    return functional_call(module, own, (hidden,)) if own else module(hidden)
