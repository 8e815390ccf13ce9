"""The tiny fixer: procedural samples, and the entry that trains on them."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from tuning import no_weights, tune_config

from stages.difix.config import BaseConfig, LoopRuntime, PretrainConfig
from stages.difix.pretraining.tiny_fixer import DeadLeavesStream

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def config(**values: object) -> PretrainConfig:
    shared = tune_config().model_dump()
    known = {key: one for key, one in shared.items() if key in PretrainConfig.model_fields}
    given = {
        "crop_px": 32,
        "shapes": 6,
        "painted_at_once": 2,
        "validation_pairs": 2,
        "steps": 2,
    }
    return PretrainConfig(runtime=LoopRuntime(checkpoint_every=1), **known | given | values)


def test_a_batch_depends_on_its_number_and_the_seed() -> None:
    whole = [batch.image for batch in islice(DeadLeavesStream(config(), CPU).batches(0, 0, 1), 3)]
    later = next(DeadLeavesStream(config(), CPU).batches(2, 0, 1)).image
    assert torch.equal(whole[2], later)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(
        whole[0], next(DeadLeavesStream(config(seed=1), CPU).batches(0, 0, 1)).image
    )


def test_processes_divide_the_stream() -> None:
    alone = [batch.image for batch in islice(DeadLeavesStream(config(), CPU).batches(0, 0, 1), 2)]
    shared = [next(DeadLeavesStream(config(), CPU).batches(0, rank, 2)).image for rank in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_references_show_the_same_leaves_from_another_viewpoint() -> None:
    batch = DeadLeavesStream(config(crop_px=64), CPU).batch("training", 0, 4)
    assert batch.reference is not None
    apart = (batch.reference - batch.target).abs().mean(dim=(1, 2, 3))
    assert (apart > 0.01).all()
    shuffled = (batch.reference.roll(1, 0) - batch.target).abs().mean(dim=(1, 2, 3))
    assert float(apart.mean()) < float(shuffled.mean())


def test_validation_samples_are_in_no_batch() -> None:
    stream = DeadLeavesStream(config(), CPU)
    validation = stream.validation_samples()
    assert len(validation) == 2
    training = stream.batch("training", 0, 2).target
    assert all(not torch.equal(one.target, other) for one in validation for other in training)
    assert torch.equal(validation[1].image, stream.validation_samples()[1].image)


@pytest.mark.slow
def test_the_entry_packs_a_readable_fixer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.difix.weights.folders import read_folder
    from stages.difix.weights.packed import unpack

    monkeypatch.chdir(tmp_path)
    no_weights(Path("data/weights"))
    base = BaseConfig(source="shipped", size="tiny", pretrain=config())
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
    assert fixer.spec.origin == "procedural"
    assert (tmp_path / "base" / "text_encoder").is_dir()
    assert "tuned" in ended.stdout
