"""Small studies, fixers and params for the tests of tuning."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from small_samples import PATHS, write_dataset
from small_study import TEST, TUNING, small_study
from torch import Tensor

from stages.difix.config import LossConfig, TuneConfig, TuneRuntime
from stages.difix.network.model import Fixer, random_fixer
from stages.difix.network.spec import SIZES, Spec
from stages.difix.tuning.losses import FixerLoss
from stages.run import layout
from stages.run.files import file_hash, write_json
from stages.samples.index import KINDS, SampleIndex, SampleRecord, metrics, write_index
from stages.samples.manifest import build, collect
from stages.scenes.config import ManifestConfig
from stages.scenes.study.config import StudyConfig


def small_spec(**values: Any) -> Spec:
    """The architecture of the tiny size with a fraction of its channels."""
    tiny = SIZES["tiny"]
    unet = tiny.unet | {"block_out_channels": [16, 32], "attention_head_dim": [1, 2]}
    unet |= {"norm_num_groups": 8, "cross_attention_dim": 16}
    vae = tiny.vae | {"block_out_channels": [8, 8, 16], "norm_num_groups": 4}
    return tiny.changed(unet=unet, vae=vae, **values)


def small_fixer(seed: int = 0, **values: Any) -> Fixer:
    """An untrained fixer of about 0.2 M parameters."""
    return random_fixer(small_spec(**values), seed)


def tune_config(**values: Any) -> TuneConfig:
    """A run of few steps on the CPU with L2 as its loss."""
    losses = LossConfig(l2=1.0, lpips=0.0, gram=0.0, net="alex")
    config: dict[str, Any] = {
        "device": "cpu",
        "precision": "fp32",
        "steps": 6,
        "batch_size": 2,
        "lr": 1e-3,
        "warmup_steps": 0,
        "trained": "all",
        "validate_every": 3,
        "resolution": 0,
        "crop_px": 32,
        "samples": 1,
        "losses": losses,
    }
    runtime = {"checkpoint_every": 2, "loader_workers": 0}
    runtime |= {key: values.pop(key) for key in [*values] if key in TuneRuntime.model_fields}
    return TuneConfig(runtime=TuneRuntime(**runtime), **config | values)


class Pixels:
    """A backbone without weights, whose only layer is the image itself."""

    def activations(self, a: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What Gram matrices are of."""
        return [a], [b]


def gram_loss(folder: Path, device: torch.device, crop_px: int, seed: int = 0) -> FixerLoss:
    """The Gram term of pixels alone, from the first step on."""
    config = LossConfig(l2=0.0, lpips=0.0, gram=1.0, gram_warmup_steps=0, gram_crop_px=crop_px)
    loss = FixerLoss(config, no_weights(folder), device, seed)
    loss.perceptual = Pixels()  # type: ignore[assignment]
    return loss


def write_study(size: tuple[int, int] = (48, 64)) -> StudyConfig:
    """Samples of a tuning and an internal-eval scene as the stages write them, and the dataset."""
    for scene, split in {TUNING: "train", TEST: "test"}.items():
        scratch = layout.pairs(scene) / "scratch"
        entries = json.loads(write_dataset(scratch, size=size).read_text())[split]
        records, sources, targets = [], {}, {}
        for index, entry in enumerate(entries.values()):
            name = f"000001_{index}"
            for kind in KINDS:
                place = layout.pairs(scene) / kind / f"{name}.png"
                place.parent.mkdir(exist_ok=True)
                Path(entry[kind]).rename(place)
            files = {kind: file_hash(layout.pairs(scene) / kind / f"{name}.png") for kind in KINDS}
            targets[f"000001/{index}"] = files["target_image"]
            sources[f"000001/9{index}"] = files["ref_image"]
            views = name, str(index), "000001", f"9{index}", "000001"
            records.append(SampleRecord(*views, None, False, "imperfect", 20.0, files))
        shutil.rmtree(scratch)
        photographs = {"source": sources, "target": targets}
        index = SampleIndex(scene, scene[5:11], split, photographs, tuple(records))
        write_index(layout.pairs(scene), index)
        write_json(layout.pairs_metrics(scene), metrics(index))
    study = small_study()
    write_json(layout.dataset(), build(collect(study, PATHS), ManifestConfig()))
    return study


def no_weights(folder: Path) -> Path:
    """A folder as stage `weights` leaves it where it finds no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    absent = {"found": False, "from": None, "sha256": None, "reason": "none on this machine"}
    (folder / "weights.json").write_text(json.dumps({"alex": absent}))
    return folder


@pytest.fixture
def one_run() -> Iterator[None]:
    """Reset accelerate, which keeps the precision of a process, and torch's own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    AcceleratorState._reset_state(reset_partial_state=True)
