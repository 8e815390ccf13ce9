"""The prompt's embedding for the UNet: CLIP's last hidden states, computed once and stored.

The only module that imports transformers. A fixer has one prompt, so the 1.4 GB of a text encoder
are needed when a fixer is created, not when it runs.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from stages.difix.weights.part_files import names_in, weight_files
from stages.run.errors import UserError

ENCODER, TOKENIZER = "text_encoder", "tokenizer"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_TINY_LAYERS, _TINY_HEADS = 2, 2

logging.disable_progress_bar()  # a log would get a line per tensor


def embed(folder: Path, prompt: str) -> Tensor:
    """Embed a prompt as [1, 77, C] with the `text_encoder` and `tokenizer` inside a folder.

    The tokenizer decides the padding: Stable Diffusion 2 does not pad as CLIP does. Raises
    UserError when one of the two is missing or broken.
    """
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / TOKENIZER, local_files_only=True)
        encoder, info = CLIPTextModel.from_pretrained(
            folder / ENCODER,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **_form(folder),
        )
        if info["missing_keys"]:
            raise ValueError(f"no {min(info['missing_keys'])}")
    # The exceptions of transformers for a broken folder differ by version and file.
    except Exception as error:
        raise UserError(
            folder,
            f"no usable {ENCODER} and {TOKENIZER} ({type(error).__name__}: {error})"[:300],
            expected="CLIP's folders, as in stabilityai/sd-turbo",
            fix="get the checkpoint again, or name its source in base.components",
        ) from error
    tokens = tokenizer(
        prompt,
        max_length=tokenizer.model_max_length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        embedding = encoder.eval()(tokens.input_ids)[0].clone()
    if not embedding.isfinite().all():
        raise UserError(
            folder / ENCODER, "its weights have NaN or infinity", fix="get the checkpoint again"
        )
    return embedding


def _form(folder: Path) -> dict[str, Any]:
    """Arguments by which transformers finds the encoder's weights."""
    files = weight_files(names_in(folder), ENCODER)
    half = next(
        (name for name in ("fp16", "bf16") if any(f".{name}" in file for file in files)), None
    )
    return {"use_safetensors": not any(file.endswith(".bin") for file in files), "variant": half}


def write_tiny_text(folder: Path, width: int, seed: int) -> None:
    """Write an untrained text encoder of `width` channels and a tokenizer of single bytes."""
    _write_byte_tokenizer(folder / TOKENIZER)
    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=_TINY_LAYERS,
        num_attention_heads=_TINY_HEADS,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPTextModel(config).save_pretrained(folder / ENCODER)


def _write_byte_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer without merges: each byte is a token."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [_letter(byte) for byte in range(256)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), _START, _END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def _letter(byte: int) -> str:
    """The character of a byte in CLIP's vocabulary; a printable byte is its own."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in printable].index(byte))
