"""Which files of a checkpoint in diffusers' layout hold the weights of its parts, by name alone.

Weights are one file or shards, in safetensors or PyTorch's format, in full or half precision:
`diffusion_pytorch_model.fp16-00001-of-00002.safetensors` is the first of two. Names are relative to
the checkpoint's folder, or listed by the hub.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.run.files import read_json

INDEX = "model_index.json"
TEXT_FOLDERS = ("text_encoder", "tokenizer")
NETWORKS = ("unet", "vae")
_STEMS = {
    "unet": ("diffusion_pytorch_model",),
    "vae": ("diffusion_pytorch_model",),
    "text_encoder": ("model", "pytorch_model"),
}
_SHARD = r"(?:[-.](?P<half>fp16|bf16))?(?:-(?P<number>\d+)-of-(?P<count>\d+))?(?:\.(?:fp16|bf16))?"
_VOCABULARIES = ({"vocab.json", "merges.txt"}, {"tokenizer.json"})


def weight_files(names: Collection[str], part: str) -> tuple[str, ...]:
    """The files that together hold a part's weights; empty where they are not complete.

    Full precision comes before half, safetensors before PyTorch's format.

    >>> weight_files(["unet/diffusion_pytorch_model.fp16.safetensors"], "unet")
    ('unet/diffusion_pytorch_model.fp16.safetensors',)
    >>> weight_files(["vae/diffusion_pytorch_model-00001-of-00002.bin"], "vae")
    ()
    """
    groups: dict[tuple[bool, bool, int], dict[int, str]] = {}
    pattern = re.compile(rf"{part}/({'|'.join(_STEMS[part])}){_SHARD}\.(safetensors|bin)")
    for name in sorted(names):
        if match := pattern.fullmatch(name):
            half = ".fp16" in name or ".bf16" in name
            key = half, name.endswith(".bin"), int(match["count"] or 1)
            groups.setdefault(key, {}).setdefault(int(match["number"] or 1), name)
    for key in sorted(groups):
        if groups[key].keys() == set(range(1, key[-1] + 1)):
            return tuple(groups[key][number] for number in sorted(groups[key]))
    return ()


def lacking(names: Collection[str], index: Mapping[str, Any] | None) -> list[str]:
    """What a checkpoint with files of these names lacks: `vae/config.json`, `weights of unet`.

    `index` is the content of its model_index.json, which says whether it has a text encoder.
    """
    parts = [*NETWORKS, *(part for part in TEXT_FOLDERS if _listed(index or {}, part))]
    absent = [] if index is not None else [INDEX]
    for part in parts:
        if part == "tokenizer":
            own = {name.removeprefix("tokenizer/") for name in names}
            absent += [] if any(files <= own for files in _VOCABULARIES) else ["tokenizer"]
            continue
        absent += [] if f"{part}/config.json" in names else [f"{part}/config.json"]
        absent += [] if weight_files(names, part) else [f"weights of {part}"]
    return absent


def wanted(names: Collection[str]) -> list[str]:
    """The files of a checkpoint that are read: no code, and one copy of the weights."""
    files = {name for name in names if name == INDEX or name.startswith("tokenizer/")}
    files |= {name for name in names if name.endswith(("/config.json", "/scheduler_config.json"))}
    files = {name for name in files if name.endswith((".json", ".txt"))}
    for part in _STEMS:
        files |= set(weight_files(names, part))
        # Transformers reads shards by their index.
        files |= {name for name in names if re.fullmatch(rf"{part}/.*\.index(\.\w+)?\.json", name)}
    return sorted(files)


def names_in(folder: Path) -> list[str]:
    """Files in a checkpoint's folder and its parts, without those that a cache only announces."""
    return [path.relative_to(folder).as_posix() for path in _files(folder) if path.is_file()]


def index_of(folder: Path) -> dict[str, Any] | None:
    """The content of a checkpoint's model_index.json, or None where it has none."""
    return read_json(folder / INDEX) if (folder / INDEX).is_file() else None


def _files(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*")
    yield from folder.glob("*/*")


def _listed(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list) and any(entry)
