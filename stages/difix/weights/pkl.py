"""The checkpoint format of the published trainer: one .pkl with the trained tensors alone.

It has the UNet, the VAE's skips and LoRA, and their rank. The VAE itself, the text encoder and the
tokenizer are SD-Turbo's, which reading one needs. It does not say whether a reference is expected.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.difix.network.model import Fixer
from stages.difix.network.training_record import FILE as RECORD_FILE
from stages.difix.network.training_record import (
    TrainingRecord,
    as_text,
    from_text,
    read_training_record,
)
from stages.difix.weights.folders import published_spec, read_part
from stages.difix.weights.state_dicts import fixer_from_published, published_state
from stages.difix.weights.tensors import load_pickled, named_tensors
from stages.run.errors import UserError
from stages.run.files import whole_file
from stages.run.plurals import first_few

SUFFIXES = (".pkl", ".pt", ".pth", ".ckpt")
_UNET, _VAE, _RANK, _LAYERS = (
    "state_dict_unet",
    "state_dict_vae",
    "rank_vae",
    "vae_lora_target_modules",
)
_MOST_RANK = 1024
_RECORD = "splatfix_taught"  # our own key, which other readers of the format ignore


def write_pkl(fixer: Fixer, path: Path, optimizer: Mapping[str, Any] | None = None) -> None:
    """Write a fixer for NVIDIA's scripts, with the state of an `optimizer` to resume from.

    Raises UserError for a fixer whose VAE was trained: the format has no place for it.
    """
    if fixer.lora is None:
        raise UserError(
            path,
            "this fixer's VAE has no LoRA, its weights themselves were trained",
            expected="a fixer of SD-Turbo's size; the format has no place for another VAE",
            fix="use the folder, which is in diffusers' layout",
        )
    parts = published_state(fixer)
    trained = {key: value for key, value in parts["vae"].items() if _is_trained(key)}
    state = {
        _LAYERS: fixer.lora.names,
        _RANK: fixer.lora.rank,
        _UNET: parts["unet"],
        _VAE: trained,
    }
    if optimizer is not None:
        state["optimizer"] = dict(optimizer)
    if fixer.training_record != TrainingRecord():
        state[_RECORD] = as_text(fixer.training_record)
    with whole_file(path) as scratch:
        torch.save(state, scratch)


def read_pkl(
    path: Path, components: Path, reference: bool, prompt_text: str, prompt: Tensor, origin: str
) -> Fixer:
    """The fixer in a .pkl.

    Raises UserError when the file is broken, contains code, or has another architecture.

    Args:
        path: the file.
        components: folder with the VAE and its config, in diffusers' layout.
        reference: whether the weights expect one.
        prompt_text: the prompt, and as `prompt` its embedding [1, T, C].
        origin: source of the weights, for the spec.
    """
    state = _load(path)
    spec = published_spec(components, reference, prompt_text, origin)
    rank = state[_RANK]
    if not 0 < rank <= _MOST_RANK:
        raise UserError(path, f"{_RANK}: {rank}", expected=f"a rank of LoRA, up to {_MOST_RANK}")
    spec = spec.changed(lora_rank=rank)
    # The components may be a fixer too, whose own skips and LoRA must not fill gaps.
    vae = {
        key: value for key, value in read_part(components, "vae").items() if not _is_trained(key)
    }
    parts = {"unet": state[_UNET], "vae": vae | state[_VAE]}
    fixer = fixer_from_published(spec, parts, prompt, path, from_turbo=False)
    text = state.get(_RECORD)
    record = TrainingRecord(unknown=(str(path),)) if text is None else from_text(str(text), path)
    if (components / RECORD_FILE).is_file():
        record = read_training_record(components).merged(record)
    fixer.training_record = record
    return fixer


def _is_trained(key: str) -> bool:
    """Whether a tensor of the VAE is in the .pkl, by its published name."""
    return "lora" in key or "skip" in key


def _load(path: Path) -> dict[str, Any]:
    """The entries of a .pkl that are used. Raises UserError for any other content."""
    state = load_pickled(path)
    types = {_UNET: dict, _VAE: dict, _RANK: int}
    if not isinstance(state, dict) or any(
        not isinstance(state.get(key), kind) or isinstance(state.get(key), bool)
        for key, kind in types.items()
    ):
        keys = first_few([*map(str, state)]) if isinstance(state, dict) else ""
        raise UserError(
            path,
            f"a {type(state).__name__} of {keys or 'no keys'}",
            expected=f"{', '.join(types)}, as the published trainer writes",
        )
    parts = {key: named_tensors(state[key], path, key) for key in (_UNET, _VAE)}
    return {**parts, _RANK: state[_RANK], _RECORD: state.get(_RECORD)}
