"""A fixer's folder in one file."""

import json
from pathlib import Path

import pytest
import torch
from fixers import perturbed, tiny_spec, write_text
from safetensors.torch import save_file

from stages.difix.base_fixer import SHIPPED_FILE
from stages.difix.network.text import embed
from stages.difix.weights.folders import read_folder, write_folder
from stages.difix.weights.packed import pack, unpack
from stages.run.errors import UserError
from stages.run.files import file_hash


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_folder(perturbed(tiny_spec()), tmp_path / "fixer", write_text(tmp_path / "text"))
    pack(tmp_path / "fixer", tmp_path / "fixer.safetensors")
    return tmp_path / "fixer.safetensors"


def test_round_trip_in_half_precision(packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "again")
    before, after = (read_folder(tmp_path / name) for name in ("fixer", "again"))
    assert before.spec == after.spec
    for key, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[key], value.half().float(), rtol=0, atol=0)
    assert embed(tmp_path / "again", "sharpen").shape == (1, 77, 16)


def test_same_folder_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    pack(tmp_path / "fixer", tmp_path / "again.safetensors")
    assert file_hash(tmp_path / "again.safetensors") == file_hash(packed)


@pytest.mark.parametrize("name", ["../outside.json", "/outside.json", "a/../../outside.json"])
def test_no_path_leaves_the_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.safetensors"
    save_file({"unet/x.safetensors|a": torch.zeros(1)}, path, {"files": json.dumps({name: "{}"})})
    with pytest.raises(UserError, match="not a packed fixer"):
        unpack(path, tmp_path / "folder")
    assert not list(tmp_path.rglob("outside.json"))


@pytest.mark.parametrize("texts", ['{"a.json": [1]}', "[" * 5000, "1", '{"a\\u0000.json": "x"}'])
def test_invalid_texts_are_refused(tmp_path: Path, texts: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"unet/x.safetensors|a": torch.zeros(1)}, path, {"files": texts})
    with pytest.raises(UserError, match="expected a file that `pack` wrote"):
        unpack(path, tmp_path / "folder")


def test_other_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a packed fixer"):
        unpack(path, tmp_path / "folder")
    path.write_bytes(b"no safetensors")
    with pytest.raises(UserError, match="not a complete safetensors file"):
        unpack(path, tmp_path / "folder")


def test_shipped_file_is_small() -> None:
    assert SHIPPED_FILE.stat().st_size < 12 * 2**20
