"""DiFix (Wu et al. 2025): one step of SD-Turbo turns a render into a clean image.

The only module that imports diffusers. Images are [B, V, 3, H, W] in [0, 1]: V views of a sample,
the render first, then its references. Only the render is decoded. Sides are multiples of
`spec.factor`.

A fixer with `spec.warped` takes its references warped into the render's view instead, as channels
beside it: images are then [B, 1, 3 + 4 k, H, W], see `with_warped`. Missing channels count as 0,
which is what an absent reference is.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from stages.difix.network.attention import KvCache, install, joined_cache
from stages.difix.network.lora import Lora, has_lora
from stages.difix.network.onestep import clean_from_noisy
from stages.difix.network.spec import RGB, Spec
from stages.difix.network.training_record import TrainingRecord
from stages.difix.network.vae import (
    Weights,
    build_skips,
    checkpointed,
    decode,
    encode,
    skip_name,
)
from stages.samples.batches import with_warped

_SKIP_WEIGHT = 1e-5  # at the start of the published training: tiny, but with a gradient
_MATCHING_GAIN = 2.0


class Fixer(nn.Module):
    """UNet, VAE, skips and LoRA as one function of images; `prompt` [1, T, C] is embedded."""

    def __init__(self, spec: Spec, prompt: Tensor):
        super().__init__()
        self.spec, self.mixing = spec, spec.mixing
        self.training_record = TrainingRecord()
        self.unet = UNet2DConditionModel(**spec.unet)
        self.vae = AutoencoderKL(**spec.vae)
        self.skips = build_skips(spec.vae["block_out_channels"])
        self.lora = Lora(self._lora_layers(), spec.lora_rank) if spec.lora_rank else None
        self.register_buffer("prompt", prompt)
        self.checkpointing = False
        self.decodes_references = False  # for a loss of all views, as in the published training
        install(self.unet)

    def forward(
        self,
        images: Tensor,  # [B, V, 3, H, W]
        kv_cache: KvCache | None = None,
        generator: torch.Generator | None = None,
        warped: Tensor | None = None,  # [B, k, 4, H, W]
    ) -> Tensor:
        """The clean render [B, 3, H, W], or with `decodes_references` all views, not clamped.

        `warped` is for images without these channels.
        With a `kv_cache` from `reference_cache` the `images` have no references. With a generator
        the latent is sampled, as in the published model; without, it is the posterior's mean.
        """
        if warped is not None:
            images = with_warped(images, warped)
        views = images.shape[1]
        noisy, activations = self._latent(images, generator)
        noise = self._noise(noisy, views=views, mixing=self.mixing, read_cache=kv_cache)
        every = 1 if self.decodes_references else views
        latent = clean_from_noisy(
            noisy[::every].float(), noise[::every].float(), self.spec.timestep
        )
        change = decode(
            self.vae,
            self.skips,
            (latent / self.vae.config.scaling_factor).to(noisy.dtype),
            [one[::every] for one in activations],
            gamma=self.spec.gamma,
            weights=self.lora_weights(),
            checkpointing=self.checkpointing,
        )
        clean = (change.float() + 1) / 2 if not self.spec.residual else change.float() / 2
        return clean + images[:, 0, :RGB].float() if self.spec.residual else clean

    @contextmanager
    def decoding_references(self, enabled: bool) -> Iterator[None]:
        """Give all views, [B * V, 3, H, W], within the block."""
        assert not (enabled and self.spec.residual), "a residual is added to the render alone"
        self.decodes_references = enabled
        try:
            yield
        finally:
            self.decodes_references = False

    def reference_cache(
        self, references: Tensor, generator: torch.Generator | None = None
    ) -> KvCache:  # [B, V, 3, H, W]
        """Keys and values of references, for any number of targets.

        Exact for `one_way` attention, where references do not attend to the target.
        """
        assert self.mixing == "one_way", "with mutual attention a reference depends on its target"
        cache: KvCache = {}
        noisy, _ = self._latent(references, generator)
        self._noise(noisy, write_cache=cache)
        return joined_cache(cache, references.shape[1])

    def lora_weights(self) -> Weights | None:
        """Decoder weights with their low-rank changes, or None without LoRA.

        The sum has the precision of both terms, which may be above that of the other weights:
        rounding first would lose small changes.
        """
        if self.lora is None:
            return None
        adapted = self.lora.adapted(self._lora_layers())
        return {name: weight.to(self.dtype) for name, weight in adapted.items()}

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the activations."""
        return self.vae.encoder.conv_in.weight.dtype

    def fold(self) -> None:
        """Merge LoRA into the weights: faster, and no longer trainable."""
        if self.lora is None:
            return
        layers = self._lora_layers()
        with torch.no_grad():
            for name, weight in self.lora.adapted(layers).items():
                layers[name.removesuffix(".weight")].copy_(weight)
        self.lora = None

    def use_checkpointing(self, of_unet: bool = True) -> None:
        """Recompute activations for the gradient, in the decoder and, with `of_unet`, the UNet."""
        self.checkpointing = True
        if of_unet:
            self.unet.enable_gradient_checkpointing(checkpointed)

    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(one.numel() for one in self.parameters())

    def _latent(
        self, images: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Latents [B * V, c, h, w] as the UNet expects them, and the encoder's activations."""
        missing = self.vae.config.in_channels - images.shape[2]
        assert missing >= 0, "more references than the fixer takes"
        if missing:
            images = F.pad(images, (0, 0, 0, 0, 0, missing))
        inputs = (2 * images.flatten(0, 1) - 1).to(self.dtype)
        latent, activations = encode(self.vae, inputs, generator)
        return latent * self.vae.config.scaling_factor, activations

    def _noise(self, noisy: Tensor, **attention: object) -> Tensor:
        """The UNet's prediction; `attention` are arguments of `MixedAttention`."""
        prompt = self.prompt.to(noisy.dtype).expand(len(noisy), -1, -1)
        kwargs = {key: value for key, value in attention.items() if value is not None}
        # Created on the device: copying a number there cannot be recorded in a CUDA graph.
        timestep = torch.full((), self.spec.timestep, device=noisy.device)
        return self.unet(noisy, timestep, prompt, cross_attention_kwargs=kwargs).sample

    def _lora_layers(self) -> dict[str, Tensor]:
        """Weights that have LoRA, by the published names of their layers."""
        layers = {name: layer.weight for name, layer in self.vae.named_modules() if has_lora(name)}
        return layers | {skip_name(index): skip.weight for index, skip in enumerate(self.skips)}


def known_keys(part: str) -> set[str]:
    """Keys of the config of diffusers' `unet` or `vae`."""
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    return set(inspect.signature(kind).parameters)


def prompt_shape(spec: Spec) -> tuple[int, int, int]:
    """Shape of an embedded prompt: CLIP's 77 tokens."""
    return 1, 77, spec.unet["cross_attention_dim"]


def empty_fixer(spec: Spec) -> Fixer:
    """A fixer on the meta device, to load weights into (`assign=True`)."""
    with torch.device("meta"):
        return Fixer(spec, torch.empty(prompt_shape(spec)))


def random_fixer(spec: Spec, seed: int, prompt: Tensor | None = None) -> Fixer:
    """An untrained fixer, initialised for training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = prompt_shape(spec)
        fixer = Fixer(spec, torch.randn(shape) if prompt is None else prompt)
        if spec.residual:
            _start_from_identity(fixer)
        else:
            # New skips must hardly change the output of a trained decoder.
            for skip in fixer.skips:
                nn.init.constant_(skip.weight, _SKIP_WEIGHT)
    return fixer


def new_tensor(
    key: str, shape: torch.Size, spec: Spec, generator: torch.Generator
) -> Tensor | None:
    """Initial values of a skip or LoRA factor that a checkpoint lacks; None for other keys."""
    if key.startswith("lora.a."):
        return torch.randn(shape, generator=generator) / spec.lora_rank
    if key.startswith("lora.b."):
        return torch.zeros(shape)
    if key.startswith("skips."):
        return torch.full(shape, _SKIP_WEIGHT)
    return None


def _start_from_identity(fixer: Fixer) -> None:
    """Start with a zero residual and with attention to similar tokens.

    From independent queries and keys a small network did not learn within minutes to match the
    reference with the render.
    """
    nn.init.zeros_(fixer.vae.decoder.conv_out.weight)
    nn.init.zeros_(fixer.vae.decoder.conv_out.bias)
    for name, layer in fixer.unet.named_modules():
        if name.endswith("attn1"):
            with torch.no_grad():
                layer.to_q.weight.mul_(_MATCHING_GAIN)
                layer.to_k.weight.copy_(layer.to_q.weight)


def trainable(fixer: Fixer, which: Literal["published", "all"]) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name; all others are frozen.

    `published`: the whole UNet, the skips and the decoder's LoRA, as NVIDIA trained. `all`: the
    encoder and decoder too, for a fixer that is trained from scratch.
    """
    parts = ("unet.", "skips.", "lora.")
    trained = {}
    for name, parameter in fixer.named_parameters():
        is_trained = which == "all" or name.startswith(parts)
        parameter.requires_grad_(is_trained)
        if is_trained:
            trained[name] = parameter
    return trained
