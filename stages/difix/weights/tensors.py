"""Named tensors of checkpoint files: safetensors, and pickles of which nothing is run."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stages.run.errors import UserError

_ORDERED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # have `aminmax`
_FIX = "get the checkpoint again, or run `dvc repro` for the stage that writes it"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, `.bin` by PyTorch, else safetensors.

    Raises UserError when it is missing or broken, or has values that are not finite.
    """
    if path.suffix == ".bin":
        return named_tensors(load_pickled(path), path, "the file")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            path,
            f"not a complete safetensors file ({error})" if path.exists() else "no such file",
            fix=_FIX,
        ) from error
    _refuse(_not_finite(tensors), path)
    return tensors


def load_pickled(path: Path) -> Any:
    """The content of a file of `torch.save`; tensors are mapped, so those not used take no memory.

    Raises UserError when it is missing or broken, or holds more than tensors and plain values.
    """
    try:
        mapped = zipfile.is_zipfile(path)  # PyTorch's format since 1.6
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected="a checkpoint") from error
    # Truncated files, other files and files with code raise a dozen different exceptions.
    except Exception as error:
        raise UserError(
            path,
            f"not a checkpoint that can be read safely ({type(error).__name__})",
            expected="tensors, numbers and text alone; code in a checkpoint is never run",
            fix="get the file again from a source that you trust, or use the diffusers folder",
        ) from error


def named_tensors(content: object, path: Path, part: str) -> dict[str, Tensor]:
    """Copies of the tensors of a dictionary in a pickle, independent of the file.

    Raises UserError when it holds anything else, or values that are not finite; `part` names it.
    """
    if not isinstance(content, dict):
        raise UserError(path, f"{part} is a {type(content).__name__}", expected="named tensors")
    tensors = {}
    for name, value in content.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided
        if not isinstance(name, str) or not dense or value.is_quantized or value.is_meta:
            what = f"{type(value).__name__} {str(name)[:80]!r}"
            raise UserError(path, f"{part} has a {what}", expected="dense tensors by name")
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    _refuse(_not_finite(tensors), path)
    return tensors


def _not_finite(tensors: dict[str, Tensor]) -> Iterator[str]:
    return (name for name, value in tensors.items() if not _is_finite(value))


def _is_finite(value: Tensor) -> bool:
    """Whether no element is NaN or infinite; in one pass and without a temporary where possible."""
    if value.dtype in _ORDERED and value.numel():
        value = torch.stack(value.aminmax())  # NaN where any element is
    return bool(value.isfinite().all())


def _refuse(names: Iterator[str], path: Path) -> None:
    for name in names:
        raise UserError(path, f"{name} has NaN or infinity", expected="weights", fix=_FIX)
