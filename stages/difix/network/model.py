"""DiFix (Wu et al. 2025): a render passes once through SD-Turbo's parts and comes out clean.

The only module that imports diffusers. Images are [B, V, 3, H, W] in [0, 1]: V views of a sample,
the render first, then its references. Only the render is decoded. Sides are multiples of
`spec.factor`.
"""

import inspect
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from stages.difix.network.attention import Memory, as_memory, install
from stages.difix.network.lora import Lora, takes_lora
from stages.difix.network.onestep import clean_from_noisy
from stages.difix.network.spec import Spec
from stages.difix.network.training_record import TrainingRecord
from stages.difix.network.vae import Weights, again, build_skips, decode, encode, skip_name

_SKIP_START = 1e-5  # of the published training: next to nothing, but with a gradient
_MATCHING_GAIN = 2.0


class Fixer(nn.Module):
    """UNet, VAE, skips and LoRA as one function of images; `prompt` [1, T, C] is embedded.

    `taught` says what its weights learnt from; whoever trains them adds to it.
    """

    def __init__(self, spec: Spec, prompt: Tensor):
        super().__init__()
        self.spec, self.mixing = spec, spec.mixing
        self.taught = TrainingRecord()
        self.unet = UNet2DConditionModel(**spec.unet)
        self.vae = AutoencoderKL(**spec.vae)
        self.skips = build_skips(spec.vae["block_out_channels"])
        self.lora = Lora(self._lora_layers(), spec.lora_rank) if spec.lora_rank else None
        self.register_buffer("prompt", prompt)
        self.checkpointing = False
        install(self.unet)

    def forward(
        self,
        images: Tensor,  # [B, V, 3, H, W]
        memory: Memory | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The clean render [B, 3, H, W], not clamped.

        `memory` is what `remember` made of the references, which `images` then leave out. With a
        generator the latent is drawn as the published model draws it; else it is the mean.
        """
        views = images.shape[1]
        noisy, activations = self._latent(images, generator)
        noise = self._noise(noisy, views=views, mixing=self.mixing, recall=memory)
        latent = clean_from_noisy(
            noisy[::views].float(), noise[::views].float(), self.spec.timestep
        )
        change = decode(
            self.vae,
            self.skips,
            (latent / self.vae.config.scaling_factor).to(noisy.dtype),
            [one[::views] for one in activations],
            gamma=self.spec.gamma,
            weights=self.lora_weights(),
            checkpointing=self.checkpointing,
        )
        clean = (change.float() + 1) / 2 if not self.spec.residual else change.float() / 2
        return clean + images[:, 0].float() if self.spec.residual else clean

    def remember(
        self, references: Tensor, generator: torch.Generator | None = None
    ) -> Memory:  # [B, V, 3, H, W]
        """What targets need of their references, to be used for as many targets as one likes.

        Exact for `one_way`, where references don't see the target.
        """
        assert self.mixing == "one_way", "with mutual attention a reference depends on its target"
        record: Memory = {}
        noisy, _ = self._latent(references, generator)
        self._noise(noisy, record=record)
        return as_memory(record, references.shape[1])

    def lora_weights(self) -> Weights | None:
        """Decoder weights with their low-rank changes, or None when there are none.

        They are added in the precision of both, which may be above that of the other weights: a
        small change would be lost in weights that were rounded before.
        """
        if self.lora is None:
            return None
        changed = self.lora.changed(self._lora_layers())
        return {name: weight.to(self.dtype) for name, weight in changed.items()}

    @property
    def dtype(self) -> torch.dtype:
        """Precision of what passes through."""
        return self.vae.encoder.conv_in.weight.dtype

    def fold(self) -> None:
        """Add the low-rank changes to the weights for good: faster, and no longer trainable."""
        if self.lora is None:
            return
        layers = self._lora_layers()
        with torch.no_grad():
            for name, weight in self.lora.changed(layers).items():
                layers[name.removesuffix(".weight")].copy_(weight)
        self.lora = None

    def use_checkpointing(self, of_unet: bool = True) -> None:
        """Spend time instead of memory on gradients: the decoder's, and those of the UNet."""
        self.checkpointing = True
        if of_unet:
            self.unet.enable_gradient_checkpointing(again)

    def parameter_count(self) -> int:
        """How many numbers were or can be learnt."""
        return sum(one.numel() for one in self.parameters())

    def _latent(
        self, images: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Latents [B * V, c, h, w] as the UNet expects them, and the encoder's activations."""
        entering = (2 * images.flatten(0, 1) - 1).to(self.dtype)
        latent, activations = encode(self.vae, entering, generator)
        return latent * self.vae.config.scaling_factor, activations

    def _noise(self, noisy: Tensor, **mixing: object) -> Tensor:
        prompt = self.prompt.to(noisy.dtype).expand(len(noisy), -1, -1)
        given = {key: value for key, value in mixing.items() if value is not None}
        # Made where it is used: a number would be copied to a GPU, which no graph can record.
        timestep = torch.full((), self.spec.timestep, device=noisy.device)
        return self.unet(noisy, timestep, prompt, cross_attention_kwargs=given).sample

    def _lora_layers(self) -> dict[str, Tensor]:
        """Weights that take LoRA, by the published names of their layers."""
        found = {name: layer.weight for name, layer in self.vae.named_modules() if takes_lora(name)}
        return found | {skip_name(index): skip.weight for index, skip in enumerate(self.skips)}


def known_keys(part: str) -> set[str]:
    """What a config of diffusers' `unet` or `vae` may hold."""
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    return set(inspect.signature(kind).parameters)


def prompt_shape(spec: Spec) -> tuple[int, int, int]:
    """Shape of an embedded prompt: CLIP's 77 tokens."""
    return 1, 77, spec.unet["cross_attention_dim"]


def empty_fixer(spec: Spec) -> Fixer:
    """A fixer without memory behind its weights, to load others into (`assign=True`)."""
    with torch.device("meta"):
        return Fixer(spec, torch.empty(prompt_shape(spec)))


def random_fixer(spec: Spec, seed: int, prompt: Tensor | None = None) -> Fixer:
    """A fixer that knows nothing, with its parts started as training needs them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = prompt_shape(spec)
        fixer = Fixer(spec, torch.randn(shape) if prompt is None else prompt)
        if spec.residual:
            _start_from_identity(fixer)
        else:
            # A trained decoder must hardly notice its new skips.
            for skip in fixer.skips:
                nn.init.constant_(skip.weight, _SKIP_START)
    return fixer


def new_tensor(
    key: str, shape: torch.Size, spec: Spec, generator: torch.Generator
) -> Tensor | None:
    """The start of a skip or LoRA factor that a checkpoint lacks; None for any other key."""
    if key.startswith("lora.a."):
        return torch.randn(shape, generator=generator) / spec.lora_rank
    if key.startswith("lora.b."):
        return torch.zeros(shape)
    if key.startswith("skips."):
        return torch.full(shape, _SKIP_START)
    return None


def _start_from_identity(fixer: Fixer) -> None:
    """Begin with no change of the input, and with attention that looks for what is alike.

    From independent queries and keys a small net did not learn within minutes to find in the
    reference what it sees in the render.
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
    encoder and decoder too, for a fixer that starts from nothing.
    """
    parts = ("unet.", "skips.", "lora.")
    chosen = {}
    for name, parameter in fixer.named_parameters():
        taken = which == "all" or name.startswith(parts)
        parameter.requires_grad_(taken)
        if taken:
            chosen[name] = parameter
    return chosen
