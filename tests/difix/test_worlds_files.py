"""The command that writes samples from procedural worlds as a dataset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_worlds_fixer import CPU, ROOT, WORLDS, config

from stages.difix.config import BaseConfig
from stages.difix.pretraining.worlds_stream import WorldsStream
from stages.run.files import folder_hash, read_json
from stages.samples.dataset import TuningDataset, read_split
from stages.samples.worlds.triples import make
from stages.scenes.images import read_image, read_rgba


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in the working folder, on two groups of one world; the second is a cycle."""
    base = BaseConfig(pretrain=config(), prompt="repair")
    Path("params.yaml").write_text(json.dumps({"base": base.model_dump()}))
    command = [sys.executable, "-m", "stages.worlds", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_worlds_become_a_dataset_that_a_fixer_can_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cycle = ("-S", "base.pretrain.worlds.cycle_every=2")
    ended = run("--out", "FOLDER", *cycle)
    assert ended.returncode == 0, ended.stderr
    worlds = WORLDS.model_copy(update={"cycle_every": 2})
    groups = [make(worlds, 4, number, CPU) for number in range(2)]
    assert [len(group.image) for group in groups] == [3, 2]
    samples = read_split(Path("FOLDER/dataset.json"), "train")
    assert len(samples) == 5
    assert {sample.prompt for sample in samples} == {"repair"}
    expected = [part for group in groups for part in zip(*group, strict=True)]
    for sample, (image, target, warped, reference) in zip(samples, expected, strict=True):
        assert sample.reference is not None
        for path, pixels in (
            (sample.image, image),
            (sample.target, target),
            (sample.reference, reference),
        ):
            assert path.is_absolute()
            stored = np.rint(255 * read_image(path)).astype(np.uint8)
            assert np.array_equal(stored, pixels.movedim(0, -1))
        assert len(sample.warped) == 4
        for path, pixels in zip(sample.warped, warped, strict=True):
            stored = np.rint(255 * read_rgba(path)).astype(np.uint8)
            assert np.array_equal(stored, pixels.movedim(0, -1))
        assert not torch.equal(reference, target)
    assert {sample.size for sample in samples} == {(32, 40), (40, 32)}
    held_out = read_split(Path("FOLDER/dataset.json"), "test")
    loaded = TuningDataset(held_out, 0, 8, warped=4).load(0)
    one = WorldsStream(config(worlds=worlds), 4, CPU).validation_samples()[0]
    for stored, known in zip(loaded, one, strict=True):
        torch.testing.assert_close(stored, known)
    info = read_json(Path("FOLDER/worlds.json"))
    assert info["worlds"] == worlds.model_dump()
    assert (info["train"], info["test"]) == (5, 2)
    assert 3 < info["train_psnr"] < 40
    assert f"train: 5 samples, input {info['train_psnr']:.2f} dB" in ended.stdout
    first = folder_hash(Path("FOLDER"))
    assert run("--out", "FOLDER", *cycle).returncode == 0
    assert folder_hash(Path("FOLDER")) == first


def test_a_folder_with_other_things_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photographs").mkdir()
    Path("photographs/mine.txt").write_text("mine")
    ended = run("--out", "photographs")
    assert ended.returncode == 2, ended.stderr
    assert "is not empty, and no result of this command: it has no worlds.json" in ended.stderr
    assert Path("photographs/mine.txt").read_text() == "mine"
