"""Training from scratch on procedural worlds: its batches, and the entry that trains."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning import no_weights, tune_config

from stages.commands import pretrain as pretrain_entry
from stages.difix.config import BaseConfig, LoopRuntime, PretrainConfig
from stages.difix.pretraining import worlds_fixer
from stages.difix.pretraining.worlds_stream import WorldsStream, disturbed, recolored
from stages.samples.worlds.config import WorldsConfig

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
WORLDS = WorldsConfig(
    groups=2,
    worlds=1,
    shapes=6,
    textures=9,
    cameras=6,
    targets=1,
    width_px=32,
    height_px=40,
    points=50,
    gaussians=100,
    steps=4,
    cycle_every=0,
)


def config(**values: object) -> PretrainConfig:
    shared = tune_config().model_dump()
    known = {key: one for key, one in shared.items() if key in PretrainConfig.model_fields}
    given = {"crop_px": 32, "validation_pairs": 2, "steps": 2, "worlds": WORLDS}
    return PretrainConfig(runtime=LoopRuntime(checkpoint_every=1), **known | given | values)


@pytest.fixture(scope="module")
def stream() -> WorldsStream:
    return WorldsStream(config(batch_size=3), 4, CPU)


def test_a_batch_depends_on_its_number_and_the_seed(stream: WorldsStream) -> None:
    whole = [batch.image for batch in islice(stream.batches(0, 0, 1), 3)]
    assert whole[0].shape == (3, 3, 32, 32)
    assert torch.equal(whole[2], next(stream.batches(2, 0, 1)).image)
    assert torch.equal(whole[1], next(stream.batches(0, 1, 2)).image)  # of the second process
    assert not torch.equal(whole[0], whole[1])
    again = WorldsStream(config(batch_size=3), 4, CPU)
    assert torch.equal(whole[0], next(again.batches(0, 0, 1)).image)


def test_batches_have_warped_references(stream: WorldsStream) -> None:
    batch = next(stream.batches(0, 0, 1))
    assert batch.reference is not None
    assert batch.reference.shape == (3, 4, 4, 32, 32)
    assert batch.views().shape == (3, 1, 3 + 4 * 4, 32, 32)
    assert batch.reference.min() >= 0
    assert batch.reference.max() <= 1
    assert batch.reference.gt(0).any()


def test_validation_samples_are_of_other_worlds(stream: WorldsStream) -> None:
    one, other = stream.validation_samples()
    assert one.image.shape == (3, 40, 32)
    assert one.reference is not None
    assert one.reference.shape == (4, 4, 40, 32)
    again = stream.validation_samples()
    assert torch.equal(other.image, again[1].image)


def test_colours_change_alike_in_all_images_of_a_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(4, 3, 8, 8, generator=generator)
    warped = torch.cat([image[:, None], torch.ones(4, 1, 1, 8, 8)], dim=2)
    warped[0, 0, 3, 0] = 0
    changed, target, references = recolored(image, image.clone(), warped, generator)
    assert torch.equal(changed, target)
    assert not torch.allclose(changed, image, atol=0.01)
    torch.testing.assert_close(references[1:, 0, :3], changed[1:])
    assert references[0, 0, :3, 0].eq(0).all()  # unknown stays unknown


def test_references_that_are_there_come_first() -> None:
    generator = torch.Generator().manual_seed(0)
    warped = torch.full((64, 4, 4, 16, 16), 0.5)
    same = {"fewer": 0.0, "shuffled": 0.0, "holes": 0.0, "exposed": 0.0}
    assert torch.equal(disturbed(warped, config(**same), generator), warped)
    fewer = disturbed(warped, config(**same | {"fewer": 1.0}), generator).amax(dim=(2, 3, 4)) > 0
    assert fewer[:, 0].all()
    assert set(fewer.sum(dim=1).tolist()) == {1, 2, 3, 4}
    assert (fewer[:, 1:] <= fewer[:, :-1]).all()
    holes = disturbed(warped, config(**same | {"holes": 1.0}), generator)
    assert 0.2 < float((holes[:, :, 3] == 0).float().mean()) < 0.6
    assert torch.equal(holes[:, :, 0] == 0, holes[:, :, 3] == 0)
    exposed = disturbed(warped, config(**same | {"exposed": 1.0}), generator)
    assert 0.01 < float((exposed[:, :, :3] - 0.5).abs().mean()) < 0.1
    assert exposed[:, :, 3].eq(0.5).all()


def test_stopped_run_of_another_seed_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(sys, "argv", ["pretrain", "--out", "packed.safetensors"])
    found = []

    class Stopped(Exception):
        pass

    def stopped(*given: Any) -> None:
        checkpoint = given[-1]
        found.append(checkpoint.load())
        checkpoint.save({"run": len(found)})
        raise Stopped

    monkeypatch.setattr(worlds_fixer, "pretrain", stopped)
    for seed in (0, 1, 0):
        base = BaseConfig(source="shipped", size="small", pretrain=config(), seed=seed)
        Path("params.yaml").write_text(json.dumps({"base": base.model_dump()}))
        with pytest.raises(Stopped):
            pretrain_entry.main()
    assert found == [None, None, {"run": 1}]


@pytest.mark.slow
def test_the_entry_packs_a_readable_fixer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.difix.weights.folders import read_folder
    from stages.difix.weights.packed import unpack

    monkeypatch.chdir(tmp_path)
    no_weights(Path("data/weights"))
    base = BaseConfig(source="shipped", size="small", pretrain=config())
    runtime = {"base": {"pretrain": {"checkpoint_every": 1}}}
    Path("params.yaml").write_text(json.dumps({"base": base.model_dump(), "runtime": runtime}))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SPLATFIX_WORK": str(tmp_path / "work")}
    command = [sys.executable, "-m", "stages.pretrain", "--out", "packed.safetensors"]
    packed = Path("packed.safetensors")
    written = []
    for _ in range(2):
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        written.append(packed.read_bytes())
    assert written[0] == written[1]
    assert packed.stat().st_size <= 12 * 2**20
    unpack(packed, tmp_path / "base")
    fixer = read_folder(tmp_path / "base")
    assert fixer.spec.origin == "procedural worlds"
    assert fixer.spec.warped == 4
    assert (tmp_path / "base" / "text_encoder").is_dir()
    assert "tuned" in ended.stdout
