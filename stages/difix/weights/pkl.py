"""The checkpoint form of the published trainer: one .pkl with the trained tensors alone.

It holds the UNet, the VAE's skips and LoRA, and their rank. The VAE itself, the text encoder and
the tokenizer are SD-Turbo's, which must be at hand to read one. Whether a reference is expected is
not in it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.difix.network.model import Fixer
from stages.difix.network.training_record import FILE as RECORD
from stages.difix.network.training_record import (
    TrainingRecord,
    as_text,
    from_text,
    read_training_record,
)
from stages.difix.weights.folders import published_spec, read_part
from stages.difix.weights.state_dicts import ADAPTER, fixer_from_published, published_state
from stages.run.errors import UserError
from stages.run.files import whole_file

SUFFIXES = (".pkl", ".pt", ".pth", ".ckpt")
_UNET, _VAE, _RANK, _LAYERS = (
    "state_dict_unet", "state_dict_vae", "rank_vae", "vae_lora_target_modules"
)  # fmt: skip
_TAUGHT = "splatfix_taught"  # ours; who reads the published form passes it by


def write_pkl(fixer: Fixer, path: Path) -> None:
    """Write a fixer for NVIDIA's scripts.

    Raises UserError for a fixer whose VAE was trained: the form has no place for it.
    """
    if fixer.lora is None:
        raise UserError(
            path, "this fixer's VAE has no LoRA, its weights themselves were trained",
            expected="a fixer of SD-Turbo's size; the form has no place for another VAE",
            fix="use the folder, which is in diffusers' layout",
        )  # fmt: skip
    parts = published_state(fixer)
    trained = {k: v for k, v in parts["vae"].items() if "lora" in k or "skip" in k}
    state = {
        _LAYERS: fixer.lora.names,
        _RANK: fixer.lora.rank,
        _UNET: parts["unet"],
        _VAE: trained,
    }
    if fixer.taught != TrainingRecord():
        state[_TAUGHT] = as_text(fixer.taught)
    with whole_file(path) as scratch:
        torch.save(state, scratch)


def read_pkl(
    path: Path, components: Path, reference: bool, prompt_text: str, prompt: Tensor, origin: str
) -> Fixer:
    """The fixer in a .pkl, whose other parts are in the folder `components`.

    Raises UserError when the file is broken, holds code, or is of another architecture.
    """
    state = _load(path)
    spec = published_spec(components, reference, prompt_text, origin)
    spec = spec.changed(lora_rank=int(state[_RANK]))
    vae = {
        key: value for key, value in read_part(components, "vae").items()
        if f".{ADAPTER}." not in key
    }  # fmt: skip
    parts = {"unet": state[_UNET], "vae": vae | dict(state[_VAE])}
    fixer = fixer_from_published(spec, parts, prompt, path)
    own = state.get(_TAUGHT)
    fixer.taught = (
        TrainingRecord(unknown=(str(path),)) if own is None else from_text(str(own), path)
    )
    if (components / RECORD).is_file():
        fixer.taught = read_training_record(components).and_by(fixer.taught)
    return fixer


def _load(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected="a checkpoint") from error
    # A truncated file, one that is no checkpoint and one with code fail in a dozen ways.
    except Exception as error:
        raise UserError(
            path,
            f"not a checkpoint that can be read safely ({type(error).__name__})",
            expected="tensors, numbers and text alone; code in a checkpoint is never run",
            fix="get the file again from a source that you trust, or use the diffusers folder",
        ) from error
    wanted = {_UNET: dict, _VAE: dict, _RANK: int}
    if not isinstance(state, dict) or any(
        not isinstance(state.get(key), kind) for key, kind in wanted.items()
    ):
        keys = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else ""
        raise UserError(
            path, f"a {type(state).__name__} of {keys or 'no keys'}",
            expected=f"{', '.join(wanted)}, as the published trainer writes",
        )  # fmt: skip
    return state
