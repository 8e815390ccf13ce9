"""A stand-in of how NVIDIA's scripts load a fixer and apply it, as their repository documents it.

`inference_difix.py` and `train_difix.py --resume` take a .pkl: diffusers' VAE and UNet of SD-Turbo,
LoRA under peft's names, four skips; every tensor is put into their state dict by name, strictly.
`DifixPipeline` takes a folder: a VAE class of its own, whose code lies beside the weights. Skips
are added before each up block of the decoder, and one step at t = 199 gives the clean latent.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

ADAPTER = "vae_skip"


class Adapted(nn.Module):
    """A layer with LoRA, with the names, scale and sum of peft's."""

    def __init__(self, layer: nn.Module, rank: int):
        super().__init__()
        self.base_layer = layer
        out, into, *kernel = layer.weight.shape
        if kernel:
            a = nn.Conv2d(into, rank, kernel, layer.stride, layer.padding, bias=False)
            b = nn.Conv2d(rank, out, 1, bias=False)
        else:
            a, b = nn.Linear(into, rank, bias=False), nn.Linear(rank, out, bias=False)
        nn.init.zeros_(b.weight)
        self.lora_A, self.lora_B = nn.ModuleDict({ADAPTER: a}), nn.ModuleDict({ADAPTER: b})
        self.scale = 8 / rank

    def forward(self, hidden: Tensor, *_: object) -> Tensor:
        change = self.lora_B[ADAPTER](self.lora_A[ADAPTER](hidden))
        return self.base_layer(hidden) + self.scale * change


def add_skips(vae: AutoencoderKL) -> None:
    """Four 1x1 convolutions in the decoder, at their initial value."""
    c0, c1, c2, c3 = vae.config.block_out_channels
    for index, (into, out) in enumerate(((c2, c3), (c1, c3), (c0, c2), (c0, c1))):
        skip = nn.Conv2d(into, out, 1, bias=False)
        nn.init.constant_(skip.weight, 1e-5)
        setattr(vae.decoder, f"skip_conv_{index + 1}", skip)


def adapt(vae: nn.Module, names: list[str], rank: int) -> None:
    """LoRA on the layers of these full names, as `add_adapter` puts it there."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        owner = vae.get_submodule(parent)
        setattr(owner, leaf, Adapted(getattr(owner, leaf), rank))


def put(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Their way to load: a state dict with these entries replaced, strictly."""
    module.load_state_dict(module.state_dict() | tensors)


class Difix:
    """The network of their scripts."""

    def __init__(self, turbo: Path, checkpoint: Path | None = None):
        self.tokenizer = CLIPTokenizer.from_pretrained(turbo / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(turbo / "text_encoder")
        self.vae = AutoencoderKL.from_pretrained(turbo / "vae")
        self.unet = UNet2DConditionModel.from_pretrained(turbo / "unet")
        add_skips(self.vae)
        if checkpoint is not None:
            state = torch.load(checkpoint, weights_only=True)
            adapt(self.vae, state["vae_lora_target_modules"], state["rank_vae"])
            put(self.vae, state["state_dict_vae"])
            put(self.unet, state["state_dict_unet"])

    def optimizer(self) -> torch.optim.AdamW:
        """AdamW over what their trainer trains; the factors of the skips are in its list twice."""
        tensors = list(self.unet.parameters())
        tensors += [one for name, one in self.vae.named_parameters() if "lora" in name]
        for index in range(4):
            tensors += self.vae.decoder.get_submodule(f"skip_conv_{index + 1}").parameters()
        return torch.optim.AdamW(tensors, lr=5e-6)

    def fix(self, image: Tensor, prompt: str) -> Tensor:  # [1, 3, H, W] in [0, 1]
        """The clean image, not clamped, from the mean latent."""
        tokens = self.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt")
        return clean(self.vae, self.unet, self.text(tokens.input_ids)[0], image)


@torch.no_grad()
def clean(vae: Any, unet: Any, embedded: Tensor, image: Tensor) -> Tensor:
    """One step of the fixer, by the parts of their pipeline."""
    hidden, taken = vae.encoder.conv_in(2 * image - 1), []
    for block in vae.encoder.down_blocks:
        taken.append(hidden)
        hidden = block(hidden)
    hidden = vae.encoder.conv_norm_out(vae.encoder.mid_block(hidden))
    hidden = vae.encoder.conv_out(functional.silu(hidden))
    latent = vae.quant_conv(hidden).chunk(2, dim=1)[0] * vae.config.scaling_factor
    noise = unet(latent, 199, embedded).sample
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    level = scheduler.alphas_cumprod[199]
    latent = (latent - (1 - level).sqrt() * noise) / level.sqrt()
    decoder = vae.decoder
    hidden = vae.post_quant_conv(latent / vae.config.scaling_factor)
    hidden = decoder.mid_block(decoder.conv_in(hidden))
    for index, block in enumerate(decoder.up_blocks):
        skip = decoder.get_submodule(f"skip_conv_{index + 1}")
        hidden = block(hidden + skip(taken[-1 - index]))
    hidden = decoder.conv_out(functional.silu(decoder.conv_norm_out(hidden)))
    return (hidden + 1) / 2


# What lies as vae/autoencoder_kl.py beside the published weights.
VAE_CODE = '''
from diffusers import AutoencoderKL as Plain
from diffusers.configuration_utils import register_to_config

from nvidia_scripts import adapt, add_skips
from stages.difix.network.lora import has_lora


class AutoencoderKL(Plain):
    """A VAE whose config has lora_rank, gamma and ignore_skip."""

    @register_to_config
    def __init__(
        self, in_channels=3, out_channels=3, down_block_types=(), up_block_types=(),
        block_out_channels=(), layers_per_block=1, act_fn="silu", latent_channels=4,
        norm_num_groups=32, sample_size=32, scaling_factor=0.18215, lora_rank=4, gamma=1.0,
        ignore_skip=False, **others,
    ):
        super().__init__(
            in_channels, out_channels, down_block_types, up_block_types, block_out_channels,
            layers_per_block, act_fn, latent_channels, norm_num_groups, sample_size, scaling_factor,
        )
        add_skips(self)
        names = [name for name, one in self.named_modules() if hasattr(one, "weight")]
        adapt(self, [name for name in names if has_lora(name)], lora_rank)
'''
UNET_CODE = "from diffusers import UNet2DConditionModel\n"
