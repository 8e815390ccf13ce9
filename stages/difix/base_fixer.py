"""The untuned fixer, from what `base.source` names.

shipped  the small fixer that is packed in the repository
train    the same, trained now
random   an untrained one, of `base.size`
else     a hub id; a folder of ours or in diffusers' layout; a .pkl of the published trainer; a file
         that `packed.pack` wrote
"""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from stages.difix.config import RANDOM, SHIPPED, TRAINED, BaseConfig
from stages.difix.network.model import Fixer, random_fixer
from stages.difix.network.spec import SIZES
from stages.difix.network.text import embed, write_tiny_text
from stages.difix.network.training_record import FILE as RECORD_FILE
from stages.difix.network.training_record import TrainingRecord
from stages.difix.pretraining.worlds_fixer import pretrain
from stages.difix.weights.checkpoints import unknown_source
from stages.difix.weights.folders import (
    has_text,
    is_ours,
    published_spec,
    read_folder,
)
from stages.difix.weights.hub import is_hub_id, snapshot
from stages.difix.weights.packed import unpack
from stages.difix.weights.part_files import TEXT_FOLDERS
from stages.difix.weights.pkl import SUFFIXES, read_pkl
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import read_json

SHIPPED_FILE = Path(__file__).parent / "weights" / "small_base.safetensors"
_PACKED = ".safetensors"


class Untuned(NamedTuple):
    """A fixer, and the folder of its text encoder and tokenizer if there is one."""

    fixer: Fixer
    text: Path | None


def untuned(config: BaseConfig, weights: Path, checkpoint: Checkpoint, scratch: Path) -> Untuned:
    """The fixer that the params name, on the CPU in float32. Raises UserError for no fixer.

    Args:
        config: section `base`.
        weights: folder of LPIPS backbones, for `source: train`.
        checkpoint: resume state, for `source: train`.
        scratch: an empty folder, which must outlive the result.
    """
    if config.source in (TRAINED, RANDOM):
        text, prompt = _tiny_text(config, scratch)
        if config.source == TRAINED:
            fixer = pretrain(config, prompt, weights, checkpoint).fixer
        else:
            spec = SIZES[config.size].changed(prompt=config.prompt)
            fixer = random_fixer(spec, config.seed, prompt)
        return Untuned(_with_reference(fixer, config), text)
    if config.source == SHIPPED:
        shipped = _from_packed(SHIPPED_FILE, config, scratch)
        shipped.fixer.training_record = TrainingRecord()  # `pretraining` reads no file
        return shipped
    path = Path(config.source).expanduser()
    if path.is_dir():
        return _from_folder(path, path.name, config)
    if path.suffix == _PACKED:
        return _from_packed(path, config, scratch)
    if path.suffix in SUFFIXES:
        return _from_pkl(path, config)
    if is_hub_id(config.source):
        folder = _downloaded(config.source, config, "base.source")
        return _from_folder(folder, f"{config.source.partition('@')[0]}@{folder.name}", config)
    raise unknown_source(config.source)


def _tiny_text(config: BaseConfig, scratch: Path) -> tuple[Path | None, Tensor | None]:
    """An untrained text encoder and its embedding of the prompt; none at SD-Turbo's size."""
    if config.source == RANDOM and config.size != "tiny":
        return None, None
    write_tiny_text(scratch, SIZES["tiny"].unet["cross_attention_dim"], config.seed)
    return scratch, embed(scratch, config.prompt)


def _from_packed(path: Path, config: BaseConfig, scratch: Path) -> Untuned:
    unpack(path, scratch)
    loaded = _from_folder(scratch, path.name, config)
    if not (scratch / RECORD_FILE).is_file():
        loaded.fixer.training_record = TrainingRecord(
            unknown=(f"{path} (it has no {RECORD_FILE})",)
        )
    return loaded


def _from_folder(folder: Path, origin: str, config: BaseConfig) -> Untuned:
    if is_ours(folder):
        return _from_ours(folder, config)
    spec = published_spec(folder, _published_reference(folder, config), config.prompt, origin)
    text = folder if has_text(folder) else _components(config)
    return Untuned(read_folder(folder, spec, embed(text, config.prompt)), text)


def _from_ours(folder: Path, config: BaseConfig) -> Untuned:
    """A folder with fixer.json, with another prompt if the params name one."""
    fixer = _with_reference(read_folder(folder), config)
    text = folder if has_text(folder) else None
    if config.prompt != fixer.spec.prompt:
        if text is None:
            raise UserError(
                "base.prompt",
                repr(config.prompt),
                expected=f"{fixer.spec.prompt!r}: {folder} has no text encoder for another",
                fix=f"set it so, or add {' and '.join(TEXT_FOLDERS)}",
            )
        fixer.prompt.copy_(embed(text, config.prompt))
        fixer.spec = fixer.spec.changed(prompt=config.prompt)
    return Untuned(fixer, text)


def _from_pkl(path: Path, config: BaseConfig) -> Untuned:
    if config.reference == "stored":
        raise _reference_unknown(path)
    if not path.is_file():
        raise UserError("base.source", f"{path}: no such file", expected="a checkpoint")
    components, reference = _components(config), config.reference == "yes"
    prompt = embed(components, config.prompt)
    fixer = read_pkl(path, components, reference, config.prompt, prompt, path.name)
    return Untuned(fixer, components)


def _components(config: BaseConfig) -> Path:
    """The folder of the parts that a checkpoint does not contain."""
    path = Path(config.components).expanduser()
    if path.is_dir():
        return path
    if is_hub_id(config.components):
        return _downloaded(config.components, config, "base.components")
    raise UserError(
        "base.components",
        f"{config.components!r}: no such folder",
        expected="a folder in diffusers' layout, or a hub id such as stabilityai/sd-turbo",
    )


def _downloaded(hub_id: str, config: BaseConfig, where: str) -> Path:
    return snapshot(
        hub_id, Path(config.runtime.cache_dir).expanduser(), config.runtime.download, where
    )


def _published_reference(folder: Path, config: BaseConfig) -> bool:
    """Whether weights in diffusers' layout expect a reference.

    Only the index of a DifixPipeline says so: with references, its UNet is of a class of its own.
    """
    if config.reference != "stored":
        return config.reference == "yes"
    index = folder / "model_index.json"
    content = read_json(index) if index.is_file() else {}
    unet = content.get("unet")
    if content.get("_class_name") != "DifixPipeline" or not isinstance(unet, list) or not unet:
        raise _reference_unknown(folder)
    return unet[0] != "diffusers"


def _with_reference(fixer: Fixer, config: BaseConfig) -> Fixer:
    if config.reference != "stored":
        fixer.spec = fixer.spec.changed(reference=config.reference == "yes")
    return fixer


def _reference_unknown(path: Path) -> UserError:
    return UserError(
        "base.reference",
        f"stored, but {path} does not say whether it expects a reference",
        fix="set base.reference: yes for weights like nvidia/difix_ref, else no",
    )
