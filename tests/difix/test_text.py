"""Prompts through a text encoder and tokenizer on disk."""

import shutil
from pathlib import Path

import pytest
import torch
from fixers import write_text
from transformers import CLIPTextModel, CLIPTokenizer

from stages.difix.network.text import embed
from stages.run.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"))


def test_embedding_is_the_last_hidden_state(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    tokens = tokenizer(
        "remove degradation", padding="max_length", max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = encoder(tokens.input_ids).last_hidden_state
    torch.testing.assert_close(embed(folder, "remove degradation"), wanted)
    assert wanted.shape == (1, 77, 16)


def test_prompts_differ_and_long_ones_are_truncated(folder: Path) -> None:
    assert not torch.equal(embed(folder, "sharpen"), embed(folder, "remove degradation"))
    assert embed(folder, "word " * 200).shape == (1, 77, 16)
    assert embed(folder, "").shape == (1, 77, 16)


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_missing_part_is_named(folder: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copy / part)
    with pytest.raises(UserError, match="no usable text_encoder and tokenizer"):
        embed(copy, "sharpen")
