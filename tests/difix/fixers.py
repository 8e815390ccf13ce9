"""Small fixers of both parametrisations, and folders as others publish them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.difix.network.model import Fixer, random_fixer
from stages.difix.network.spec import SIZES, Spec
from stages.difix.network.text import write_tiny_text
from stages.difix.weights.folders import write_folder
from stages.difix.weights.part_files import TEXT_FOLDERS
from stages.difix.weights.state_dicts import published_state


def tiny_spec(**values: Any) -> Spec:
    """The architecture of the tiny size with fewer channels: residual, without LoRA."""
    tiny = SIZES["tiny"]
    unet = tiny.unet | {"block_out_channels": [16, 32], "attention_head_dim": [1, 2]}
    unet |= {"norm_num_groups": 8, "cross_attention_dim": 16}
    vae = tiny.vae | {"block_out_channels": [8, 8, 16], "norm_num_groups": 4}
    return tiny.changed(unet=unet, vae=vae, **values)


def warped_spec(warped: int = 2, **values: Any) -> Spec:
    """As `tiny_spec`, with warped references."""
    spec = tiny_spec(warped=warped, **values)
    return spec.changed(vae=spec.vae | {"in_channels": 3 + 4 * warped})


def published_spec(**values: Any) -> Spec:
    """The architecture of SD-Turbo with few channels: four levels, LoRA, not residual."""
    sd = SIZES["sd-turbo"]
    unet = sd.unet | {"block_out_channels": [8, 16, 16, 16], "attention_head_dim": [1, 2, 2, 2]}
    unet |= {"norm_num_groups": 4, "cross_attention_dim": 16, "layers_per_block": 1}
    vae = sd.vae | {"block_out_channels": [4, 8, 12, 16], "norm_num_groups": 4}
    return sd.changed(unet=unet, vae=vae, **values)


def perturbed(spec: Spec, seed: int = 0, prompt: Tensor | None = None) -> Fixer:
    """A random fixer without zero weights, so that every part affects the output."""
    fixer = random_fixer(spec, seed, prompt)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for one in fixer.parameters():
            one.add_(0.05 * torch.randn(one.shape, generator=generator))
    return fixer.eval()


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def write_text(folder: Path, width: int = 16) -> Path:
    """A text encoder and its tokenizer."""
    write_tiny_text(folder, width, seed=0)
    return folder


def publish(fixer: Fixer, folder: Path) -> Path:
    """A folder as NVIDIA publishes it: without our files, with code beside the weights."""
    own = folder.with_name(folder.name + "_own")
    write_folder(fixer, own, write_text(folder.with_name(folder.name + "_text")))
    for name in ("unet", "vae", "scheduler", *TEXT_FOLDERS):
        shutil.copytree(own / name, folder / name)
    shutil.copy(own / "model_index.json", folder)
    for name in ("unet/unet_2d_condition.py", "vae/autoencoder_kl.py"):
        (folder / name).write_text("raise SystemExit('code of a checkpoint was run')\n")
    return folder


def publish_turbo(fixer: Fixer, folder: Path) -> Path:
    """A folder as Stability publishes SD-Turbo: a VAE without skips and LoRA, another index."""
    publish(fixer, folder)
    plain = {
        key.replace(".base_layer.", "."): value
        for key, value in published_state(fixer)["vae"].items()
        if "lora" not in key and "skip_conv" not in key
    }
    save_file(plain, folder / "vae" / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "vae" / "config.json").read_text())
    config = {key: config[key] for key in config.keys() - {"lora_rank", "gamma", "ignore_skip"}}
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def same_weights(one: Fixer, other: Fixer) -> bool:
    """Whether two fixers have equal state dicts."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
