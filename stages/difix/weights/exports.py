"""Fixers for NVIDIA's own scripts: the trainer's .pkl, and the folder of its diffusers pipeline.

And the dataset for that trainer.

Their code has no place for what the fixers of this repository can be beyond the published ones.
Such a fixer is refused, since its images there would be others.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from stages.difix.network.model import Fixer
from stages.difix.network.spec import LORA_RANK
from stages.difix.weights.folders import has_text, write_folder
from stages.difix.weights.part_files import TEXT_FOLDERS
from stages.difix.weights.pkl import write_pkl
from stages.run.errors import UserError
from stages.run.files import whole_folder, write_json
from stages.samples.dataset import read_split
from stages.scenes.config import SPLITS

# Their trainer takes the number of steps from the name, and resumes at the next.
PKL_NAME = "model_0.pkl"
PUBLISHED = {False: "nvidia/difix", True: "nvidia/difix_ref"}
_CODE_OF_VAE, _CODE_OF_UNET = "vae/autoencoder_kl.py", "unet/unet_2d_condition.py"


def export_pkl(fixer: Fixer, target: Path, start: Fixer | None, lr: float) -> list[str]:
    """Write a .pkl for `inference_difix.py --model_path` and `train_difix.py --resume`.

    Returns notes for the user. Raises UserError for a fixer that is another one there.

    Args:
        fixer: the fixer.
        target: the folder for model_0.pkl.
        start: the one that it was tuned from, to see which parts were trained.
        lr: of the optimiser in the file, which has no moments yet.
    """
    _refuse_others(fixer, target)
    if fixer.spec.gamma != 1:
        raise _other(target, f"skips are scaled by {fixer.spec.gamma}", "1, as their scripts do")
    changed = [] if start is None else list(_changed_parts(fixer, start))
    if changed:
        raise _other(
            target,
            f"its {changed[0]} was trained too (tune.trained: all)",
            "SD-Turbo's VAE, of which a .pkl has skips and LoRA alone",
        )
    path = target / PKL_NAME
    write_pkl(fixer, path, _optimizer(fixer, lr))
    spec = fixer.spec
    rank = f" --lora_rank_vae {spec.lora_rank}" if spec.lora_rank != LORA_RANK else ""
    views = ' --ref_image "REFERENCE"' if spec.reference else ""
    return [
        f'python src/inference_difix.py --model_path "{path}" --input_image "IMAGE"{views} '
        f'--prompt "{spec.prompt}" --timestep {spec.timestep}',
        f'accelerate launch src/train_difix.py --resume "{path}" --timestep {spec.timestep}{rank} '
        + ("--mv_unet ..." if spec.reference else "..."),
    ]


def export_folder(fixer: Fixer, target: Path, text: Path) -> list[str]:
    """Write a folder for NVIDIA's `DifixPipeline.from_pretrained`.

    Returns notes for the user. Raises UserError for a fixer that is another one there.

    Args:
        fixer: the fixer.
        target: the folder.
        text: a folder with its text encoder and tokenizer.
    """
    _refuse_others(fixer, target)
    if not has_text(text):
        raise UserError(
            text,
            f"no {' and '.join(TEXT_FOLDERS)}",
            expected="those of SD-Turbo, which their pipeline loads from the folder",
            fix="run `dvc repro base` with base.components",
        )
    with whole_folder(target) as scratch:
        write_folder(fixer, scratch, text)
    spec = fixer.spec
    code = [_CODE_OF_VAE, *([_CODE_OF_UNET] if spec.reference else [])]
    views = ", ref_image=REFERENCE" if spec.reference else ""
    return [
        f"hf download {PUBLISHED[spec.reference]} {' '.join(code)} --local-dir {target}",
        f'DifixPipeline.from_pretrained("{target}", trust_remote_code=True)'
        f'("{spec.prompt}", image=IMAGE{views}, num_inference_steps=1, '
        f"timesteps=[{spec.timestep}], guidance_scale=0.0)",
    ]


def _refuse_others(fixer: Fixer, target: Path) -> None:
    """Raise UserError for a fixer that computes what their code does not."""
    spec = fixer.spec
    if spec.residual or fixer.lora is None:
        raise _other(target, f"a fixer of size {spec.size}", "SD-Turbo's VAE with LoRA and skips")
    if spec.reference and spec.mixing != "mutual":
        raise _other(target, f"{spec.mixing} attention to the reference", "mutual attention")


def _other(target: Path, got: str, expected: str) -> UserError:
    return UserError(
        target,
        f"not exported: {got}",
        expected=f"{expected}; NVIDIA's code would give other images",
        fix="use this repository to apply it, or tune with tune.trained: published",
    )


def _changed_parts(fixer: Fixer, start: Fixer) -> Iterator[str]:
    """Parts of the VAE, outside skips and LoRA, that differ between two fixers."""
    before = start.state_dict()
    for name, value in fixer.state_dict().items():
        if name.startswith("vae.") and name in before and not torch.equal(value, before[name]):
            yield f"VAE ({name.removeprefix('vae.')})"


def _optimizer(fixer: Fixer, lr: float) -> dict:
    """The state of a new AdamW over as many tensors as their trainer hands to it.

    These are the UNet's, the LoRA factors, and then each skip with its factors once more.
    """
    assert fixer.lora is not None, "checked before"
    factors = 2 * len(fixer.lora.names)
    count = len(list(fixer.unet.parameters())) + factors + 3 * len(fixer.skips)
    tensors = [torch.nn.Parameter(torch.empty(0)) for _ in range(count)]
    return torch.optim.AdamW(tensors, lr=lr, weight_decay=0.01).state_dict()


def export_dataset(dataset: Path, target: Path) -> list[str]:
    """Write the samples with absolute paths, which a loader in any folder finds.

    Returns notes for the user. Raises UserError when a sample is missing or broken.

    Args:
        dataset: of stage `manifest`, with paths relative to this folder.
        target: the file.
    """
    splits = {}
    for split in SPLITS:
        splits[split] = {
            sample.name: {
                "image": str(sample.image.absolute()),
                "target_image": str(sample.target.absolute()),
                **({"ref_image": str(sample.reference.absolute())} if sample.reference else {}),
                "prompt": sample.prompt,
            }
            for sample in read_split(dataset, split)
        }
    write_json(target, splits)
    return [f'accelerate launch src/train_difix.py --dataset_path "{target.absolute()}" ...']
