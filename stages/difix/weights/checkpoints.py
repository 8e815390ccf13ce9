"""Checks, before anything is computed, that the checkpoints in params exist.

Only the names of their files are read, without torch.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.difix.config import RANDOM, SHIPPED, TRAINED, BaseConfig, FixerConfig, TuneConfig
from stages.difix.weights.names import HUB_ID, KNOWN
from stages.difix.weights.part_files import INDEX, lacking, names_in
from stages.run.errors import UserError
from stages.run.methods import TUNED
from stages.run.settings.params import did_you_mean
from stages.scenes.config import reference_errors

PICKLED = (".pkl", ".pt", ".pth", ".ckpt")
PACKED = ".safetensors"
Where = Callable[[tuple[str | int, ...]], str]


def chosen_errors(values: Mapping[str, Any], where: Where) -> Iterator[UserError]:
    """`checkpoint_errors` of the sections of params that are valid, where fixers are used.

    And keys of their references that do not go together.
    """
    if not {"study", "base", "tune"} <= values.keys() or not values["study"].fixers:
        return
    tune = values["tune"] if TUNED in values["study"].fixers else None
    yield from checkpoint_errors(values["base"], tune, where)
    if tune is not None and {"difix", "pairs"} <= values.keys():
        yield from _reference_errors(values["difix"], values["pairs"].reference.strategy, where)


def _reference_errors(fixing: FixerConfig, strategy: str, where: Where) -> Iterator[UserError]:
    if fixing.references > 1:
        yield UserError(
            where(("difix", "references")),
            str(fixing.references),
            expected="1 with a tuned fixer: samples have one reference",
            fix="set it to 1, or leave the tuned fixer out of study.fixers and study.methods",
        )
    yield from reference_errors(fixing.reference_from, strategy, where(("difix", "reference_from")))


def checkpoint_errors(
    base: BaseConfig, tune: TuneConfig | None, where: Where, ask_hub: bool = True
) -> Iterator[UserError]:
    """Errors in `base.source` and, unless None, in `tune`: missing, misspelt or no fixer.

    With `ask_hub`, the hub is asked about an id that is not in the cache.
    """
    yield from _source_errors(base, where, ask_hub)
    if tune is not None and tune.init_from:
        at, path = where(("tune", "init_from")), Path(tune.init_from).expanduser()
        if path.is_dir():
            yield from _folder_errors(path, at, ours=False)
        elif path.suffix not in PICKLED or not path.is_file():
            yield UserError(
                at,
                f"{tune.init_from}: no such folder or file",
                expected="a fixer's folder, or a .pkl of the published trainer",
                fix="name one that exists, or leave it empty",
            )


def own_output_errors(named: Mapping[str, str], outputs: Mapping[str, Path]) -> Iterator[UserError]:
    """Errors in params that name what a stage writes, which is then never up to date.

    Args:
        named: values by param.
        outputs: folders that stages write, by stage.
    """
    for key, text in named.items():
        path = Path(text).expanduser().resolve()
        for stage, output in outputs.items():
            if text and path.is_relative_to(output.resolve()):
                yield UserError(
                    key,
                    f"{text} is written by stage {stage}",
                    expected="a fixer that no stage replaces",
                    fix=f"copy {output} to another folder and name that",
                )


def write_named(text: str, target: Path) -> str:
    """Link `target` to the file or folder that `text` names, and return its absolute path.

    Text that names nothing on this machine, such as a hub id, is written and returned itself.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = Path(text).expanduser()
    scratch = target.with_name(f".{target.name}.part")
    scratch.unlink(missing_ok=True)
    is_here = bool(text) and path.exists()
    content = str(path.absolute()) if is_here else text
    if is_here:
        scratch.symlink_to(content)
    else:
        scratch.write_text(f"{text}\n")
    scratch.replace(target)
    return content


def unknown_source(source: str, where: str = "base.source") -> UserError:
    """The error for a `base.source` that names nothing."""
    return UserError(
        where,
        f"no fixer {source!r}",
        expected=f"one of {', '.join(KNOWN)}, another hub id, or an existing folder or file",
        hint=did_you_mean(source, KNOWN),
        fix="set base.source to one of them",
    )


def _source_errors(base: BaseConfig, where: Where, ask_hub: bool) -> Iterator[UserError]:
    at, path = where(("base", "source")), Path(base.source).expanduser()
    if base.source in (SHIPPED, TRAINED, RANDOM):
        return
    if path.is_dir():
        yield from _folder_errors(path, at, ours=True)
    elif path.suffix in (*PICKLED, PACKED):
        if not path.is_file():
            yield unknown_source(base.source, at)
        elif path.suffix != PACKED:
            yield from _pickle_errors(base, where, ask_hub)
    else:
        yield from _hub_errors(base.source, base, at, ask_hub)


def _pickle_errors(base: BaseConfig, where: Where, ask_hub: bool) -> Iterator[UserError]:
    """A .pkl does not say whether it expects a reference, and has no VAE or text encoder."""
    if base.reference == "stored":
        yield UserError(
            where(("base", "reference")),
            f"stored, but {base.source} does not say it",
            expected="yes for weights like nvidia/difix_ref, else no",
            fix="set base.reference: yes or no",
        )
    folder, at = Path(base.components).expanduser(), where(("base", "components"))
    if folder.is_dir():
        yield from _folder_errors(folder, at, ours=False)
    else:
        yield from _hub_errors(base.components, base, at, ask_hub)


def _folder_errors(folder: Path, at: str, *, ours: bool) -> Iterator[UserError]:
    """Files that a folder lacks to be a fixer, `ours` or in diffusers' layout."""
    absent = [one for one in lacking(names_in(folder), None) if one != INDEX]
    if ours and (folder / "fixer.json").is_file():
        name = "prompt_embedding.safetensors"
        absent += [] if (folder / name).is_file() else [name]
    if absent:
        yield UserError(
            at,
            f"{folder} is no fixer: it has no {', '.join(absent)}",
            expected="a folder in diffusers' layout: unet and vae, each with config and weights",
            fix="name the folder of a fixer, or get the checkpoint again",
        )


def _hub_errors(name: str, base: BaseConfig, at: str, ask_hub: bool) -> Iterator[UserError]:
    if not HUB_ID.fullmatch(name):
        yield unknown_source(name, at)
        return
    from stages.difix.weights import hub

    cache = Path(base.runtime.cache_dir).expanduser()
    fault = hub.absence(name, cache, base.runtime.download, at, ask=ask_hub)
    if fault is not None:
        yield fault
