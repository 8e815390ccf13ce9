"""Fixers on disk in diffusers' folder layout.

Folders written here have the layout of nvidia/difix, with `fixer.json` and the embedded prompt
beside it. Only config.json and safetensors of a checkpoint are read; its code is never run.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from stages.difix.network import onestep
from stages.difix.network.model import Fixer, known_keys
from stages.difix.network.spec import FILE, LORA_RANK, RGB, Spec, read_spec, write_spec
from stages.difix.network.training_record import FILE as RECORD
from stages.difix.network.training_record import read_training_record, write_training_record
from stages.difix.weights.part_files import INDEX, TEXT_FOLDERS, names_in, weight_files
from stages.difix.weights.state_dicts import fixer_from_published, published_state
from stages.difix.weights.tensors import read_tensors
from stages.run.errors import UserError
from stages.run.files import read_json, shaped, write_json

PROMPT_FILE = "prompt_embedding.safetensors"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_FIX = "get the checkpoint again, or run `dvc repro` for the stage that writes it"
_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
_VERSION = "0.25.1"  # of diffusers, in the published checkpoints
# Keys of a published VAE's config that diffusers does not know.
_SKIP_KEYS = ("lora_rank", "gamma", "ignore_skip")


def write_folder(fixer: Fixer, folder: Path, text_from: Path | None = None) -> None:
    """Write a fixer, with a copy of the text encoder and tokenizer in `text_from`."""
    spec, parts = fixer.spec, published_state(fixer)
    for part, config in (("unet", spec.unet), ("vae", spec.vae | _skip_values(spec))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        named = {"_class_name": _CLASSES[part], "_diffusers_version": _VERSION} | config
        write_json(folder / part / "config.json", named)
        save_file(parts[part], folder / part / _WEIGHTS)
    prompt = fixer.prompt.detach().float().cpu().contiguous()
    save_file({"prompt": prompt}, folder / PROMPT_FILE)
    write_spec(folder, spec)
    write_training_record(folder, fixer.training_record)
    for name in TEXT_FOLDERS if text_from else ():
        if (text_from / name).is_dir():
            shutil.copytree(text_from / name, folder / name, symlinks=False)
    _write_index(folder, spec)


def read_folder(folder: Path, spec: Spec | None = None, prompt: Tensor | None = None) -> Fixer:
    """The fixer in a folder, on the CPU in float32.

    A folder without fixer.json needs its `spec` (see `published_spec`) and the embedded prompt.
    Raises UserError when files are missing or broken, or have another architecture.
    """
    with shaped(folder, "a fixer whose configs and weights belong together", _FIX):
        from_turbo = spec is not None and not adds_to_turbo(folder)
        if spec is None:
            spec = read_spec(folder)
            prompt = read_tensors(folder / PROMPT_FILE)["prompt"]
        assert prompt is not None, "a published folder's prompt is embedded by the caller"
        parts = {part: read_part(folder, part) for part in _CLASSES}
        fixer = fixer_from_published(spec, parts, prompt, folder, from_turbo=from_turbo)
    if is_ours(folder) or (folder / RECORD).is_file():
        fixer.training_record = read_training_record(folder)
    return fixer


def adds_to_turbo(folder: Path) -> bool:
    """Whether the config of a folder's VAE has DiFix's keys, so that its weights have skips."""
    return not read_json(folder / "vae" / "config.json").keys().isdisjoint(_SKIP_KEYS)


def has_text(folder: Path) -> bool:
    """Whether a folder has a text encoder and a tokenizer."""
    return all((folder / name).is_dir() for name in TEXT_FOLDERS)


def is_ours(folder: Path) -> bool:
    """Whether a folder has fixer.json, which says how it is used."""
    return (folder / FILE).is_file()


def published_spec(folder: Path, reference: bool, prompt: str, origin: str) -> Spec:
    """The spec of a folder in the layout of nvidia/difix or stabilityai/sd-turbo.

    Such a folder does not say whether its weights expect a `reference`.
    """
    with shaped(folder, "configs of a UNet and a VAE, with their channels", _FIX):
        return _published_spec(folder, reference, prompt, origin)


def _published_spec(folder: Path, reference: bool, prompt: str, origin: str) -> Spec:
    unet, vae = (read_config(folder, part) for part in _CLASSES)
    if unet["in_channels"] != vae["latent_channels"] or unet.get("addition_embed_type"):
        raise UserError(
            folder,
            f"a UNet of {unet['in_channels']} channels and a VAE of {vae['latent_channels']}"
            if unet["in_channels"] != vae["latent_channels"]
            else "a UNet that needs more than an image and a prompt",
            expected="SD-Turbo's architecture: a UNet on the VAE's latents, one prompt",
        )
    if vae.get("in_channels", RGB) != RGB:
        raise UserError(
            folder,
            f"a VAE of {vae['in_channels']} input channels and no {FILE}",
            expected=f"{RGB} channels, or the {FILE} of a fixer that takes warped references",
        )
    extras = {key: vae.pop(key, None) for key in _SKIP_KEYS}
    gamma = 1.0 if extras["gamma"] is None else float(extras["gamma"])
    return Spec(
        unet=unet,
        vae=vae,
        reference=reference,
        lora_rank=int(extras["lora_rank"] or LORA_RANK),
        gamma=0.0 if extras["ignore_skip"] else gamma,
        prompt=prompt,
        origin=origin,
    )


def read_config(folder: Path, part: str) -> dict[str, Any]:
    """A part's config without diffusers' private keys.

    Raises UserError for another class, and for keys that the installed diffusers does not know.
    """
    path = folder / part / "config.json"
    if not path.is_file():
        raise UserError(
            path, "no such file", expected="a fixer: folders unet and vae, or a .pkl file"
        )
    config = read_json(path)
    class_name = config.get("_class_name", _CLASSES[part])
    if class_name != _CLASSES[part]:
        raise UserError(path, f"a {class_name}", expected=f"{_CLASSES[part]}, as in SD-Turbo")
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    unknown = own.keys() - known_keys(part) - set(_SKIP_KEYS)
    if any(own[key] for key in unknown):
        raise UserError(
            path,
            f"unknown settings: {', '.join(sorted(key for key in unknown if own[key]))}",
            expected=f"those of diffusers' {_CLASSES[part]}",
        )
    return {key: value for key, value in own.items() if key not in unknown}


def read_part(folder: Path, part: str) -> dict[str, Tensor]:
    """Tensors of `unet` or `vae`. Raises UserError when its weights are not complete."""
    names = weight_files(names_in(folder), part)
    if not names:
        raise UserError(
            folder / part,
            "no weights, or not all shards",
            expected=f"{_WEIGHTS}, or in shards or as .fp16 or .bin",
            fix="get the checkpoint again",
        )
    return {key: value for name in names for key, value in read_tensors(folder / name).items()}


def _skip_values(spec: Spec) -> dict[str, Any]:
    return {"lora_rank": spec.lora_rank, "gamma": spec.gamma, "ignore_skip": False}


def _write_index(folder: Path, spec: Spec) -> None:
    """Write the files by which diffusers and NVIDIA's scripts load a pipeline."""
    unet = "unet_2d_condition" if spec.reference else "diffusers"
    index: Mapping[str, Any] = {
        "_class_name": "DifixPipeline",
        "_diffusers_version": _VERSION,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": [unet, _CLASSES["unet"]],
        "vae": ["autoencoder_kl", _CLASSES["vae"]],
    }
    scheduler = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": _VERSION,
        "beta_start": onestep.BETA_START,
        "beta_end": onestep.BETA_END,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": onestep.NOISING_STEPS,
        "prediction_type": "epsilon",
        "clip_sample": False,
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
