"""Fixers, as folders and packed."""

import json
from functools import partial
from pathlib import Path
from random import Random
from shutil import copy, rmtree

import torch
from damage import Subject, bytes_of, header_of, value_of

from stages.difix.base_fixer import SHIPPED_FILE
from stages.difix.network.model import Fixer
from stages.difix.weights.folders import read_folder
from stages.difix.weights.packed import unpack


def subjects(folder: Path) -> list[Subject]:
    """The files of the shipped fixer's folder that are read, and the file that it is packed in."""
    whole = folder / "whole"
    unpack(SHIPPED_FILE, whole)
    names = ("fixer.json", "prompt_embedding.safetensors", "unet/config.json", "vae/config.json")
    files = [whole / name for name in names]
    files += [whole / part / "diffusion_pytorch_model.safetensors" for part in ("unet", "vae")]
    found = [Subject(path, _damage, partial(read_folder, whole), _sane) for path in files]
    packed = folder / SHIPPED_FILE.name
    copy(SHIPPED_FILE, packed)
    return [*found, Subject(packed, header_of, partial(_unpacked, packed), _sane)]


def _damage(data: bytes, draw: Random) -> bytes:
    odd = data.startswith(b"{") and draw.random() < 0.7
    return json.dumps(value_of(json.loads(data), draw)).encode() if odd else bytes_of(data, draw)


def _unpacked(packed: Path) -> Fixer:
    folder = packed.with_suffix("")
    rmtree(folder, ignore_errors=True)
    unpack(packed, folder)
    return read_folder(folder)


def _sane(found: Fixer) -> None:
    assert all(torch.isfinite(value).all() for value in found.state_dict().values())
