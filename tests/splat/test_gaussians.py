"""The file of Gaussians: its content, its repeatable bytes, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.splat.gaussians import TENSORS, Gaussians


def test_gaussians_survive_saving_and_loading(truth: Gaussians, tmp_path: Path) -> None:
    kept = replace(truth, metadata={"step": 7, "background": [0.0, 0.5, 1.0]})
    kept.save(tmp_path / "a.safetensors")
    read = Gaussians.load(tmp_path / "a.safetensors")
    assert all(torch.equal(getattr(read, name), getattr(kept, name)) for name in TENSORS)
    assert read.world_from_norm.to_dict() == kept.world_from_norm.to_dict()
    assert (read.antialiased, read.metadata) == (kept.antialiased, kept.metadata)


def test_bytes_repeat(truth: Gaussians, tmp_path: Path) -> None:
    # A header of several entries would change its order nearly every time.
    for index in range(12):
        truth.save(tmp_path / f"{index}.safetensors")
    assert len({file_hash(path) for path in tmp_path.iterdir()}) == 1


def test_missing_truncated_and_foreign_files_are_refused(truth: Gaussians, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Gaussians.load(tmp_path / "absent.safetensors")
    whole = tmp_path / "whole.safetensors"
    truth.save(whole)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        Gaussians.load(cut)
    save_file({"means": torch.zeros(1, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"not Gaussians of this project"):
        Gaussians.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("facts", ["1", "[" * 5000, "{", "[]", '{"format": 1e999}'])
def test_broken_headers_are_refused(truth: Gaussians, tmp_path: Path, facts: str) -> None:
    path = tmp_path / "a.safetensors"
    truth.save(path)
    with safe_open(path, framework="pt") as file:
        (key,) = file.metadata()
        tensors = {name: file.get_tensor(name) for name in TENSORS}
    save_file(tensors, path, metadata={key: facts})
    with pytest.raises(UserError, match=r"not Gaussians of this project|not a whole"):
        Gaussians.load(path)
