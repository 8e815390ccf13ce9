"""Checkpoints of the Hugging Face hub, from its cache or else downloaded.

Only weights, configs and tokenizers are requested, never the code beside them. The only module that
imports huggingface_hub.
"""

import os
import shlex
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stages.difix.weights.names import HUB_ID, PUBLISHED
from stages.difix.weights.part_files import INDEX, index_of, lacking, names_in, wanted
from stages.run.errors import UserError
from stages.run.settings.params import did_you_mean

_TIMEOUT_S = 10.0
# For the command in messages, which cannot know what a repository has.
_PATTERNS = ("*.json", "*.txt", "*/*.safetensors")


def is_hub_id(text: str) -> bool:
    """Whether a text is a well-formed hub id.

    >>> is_hub_id("nvidia/difix_ref"), is_hub_id("nvidia/difix@main"), is_hub_id("shipped")
    (True, True, False)
    """
    return HUB_ID.fullmatch(text) is not None


def absence(
    hub_id: str, cache: Path, download: bool, where: str, *, ask: bool = True
) -> UserError | None:
    """Why a checkpoint is not available: neither in a cache nor at the hub.

    Args:
        hub_id: repository, perhaps with a revision.
        cache: folder in the hub's own layout.
        download: whether the hub may be used at all.
        where: the parameter, for the messages.
        ask: ask the hub; without, a checkpoint that may be downloaded counts as available.
    """
    if _whole_snapshot(hub_id, cache):
        return None
    if not download:
        return _absent(hub_id, cache, where, "runtime.base.download is false")
    if not ask:
        return None
    try:
        _published_files(hub_id, where)
    except UserError as error:
        return error
    except Exception as error:
        return _refused(error, hub_id, cache, where)
    return None


def snapshot(hub_id: str, cache: Path, download: bool, where: str) -> Path:
    """Folder of a checkpoint in `cache`, or in the cache that all programs of the user share.

    The hub is not asked about a checkpoint that is whole in one of them, so a run repeats until it
    is removed there; what lacks files is completed in `cache`. Raises UserError, naming the
    parameter `where`, when that is not possible.
    """
    # The transfer library has a cache of its own, by default in the home folder.
    os.environ.setdefault("HF_XET_CACHE", str(cache.resolve() / "xet"))
    folder = _whole_snapshot(hub_id, cache)
    if folder:
        return folder
    if not download:
        raise _absent(hub_id, cache, where, "runtime.base.download is false")
    print(f"{where}: {hub_id} is not in {cache}, downloading it", flush=True)
    try:
        files = _published_files(hub_id, where)
        repo, revision = _parts(hub_id)
        return Path(
            snapshot_download(repo, revision=revision, cache_dir=cache, allow_patterns=files)
        )
    except UserError:
        raise
    except Exception as error:
        raise _refused(error, hub_id, cache, where) from error


def _parts(hub_id: str) -> tuple[str, str | None]:
    """Repository and revision."""
    match = HUB_ID.fullmatch(hub_id)
    assert match, f"{hub_id!r} is no hub id"
    return match["repo"], match["revision"]


def _whole_snapshot(hub_id: str, cache: Path) -> Path | None:
    """The folder of a checkpoint that has all its files, in `cache` or else in the shared one."""
    for root in (cache, shared_cache()):
        folder = _cached(hub_id, root)
        if folder and not lacking(names_in(folder), index_of(folder)):
            return folder
    return None


def shared_cache() -> Path:
    """The hub's cache of this user: $HF_HUB_CACHE, or `hub` in $HF_HOME."""
    return Path(constants.HF_HUB_CACHE)


def _cached(hub_id: str, cache: Path) -> Path | None:
    """Folder of a checkpoint in a cache, perhaps without some of its files."""
    repo, revision = _parts(hub_id)
    root = cache / f"models--{repo.replace('/', '--')}"
    ref = root / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = root / "snapshots" / commit if commit else None
    return folder if folder and folder.is_dir() else None


def _published_files(hub_id: str, where: str) -> list[str]:
    """The files of a checkpoint at the hub that are read.

    Raises UserError when it is no fixer, and the hub's own exceptions.
    """
    repo, revision = _parts(hub_id)
    info = HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT_S)
    names = [one.rfilename for one in info.siblings or ()]
    absent = [one for one in lacking(names, None) if one != INDEX]
    if absent:
        raise UserError(
            where,
            f"{hub_id} is no fixer: the hub's files lack {', '.join(absent)}",
            expected="a model in diffusers' layout, such as nvidia/difix_ref",
            fix="name another, or base.source: shipped",
        )
    return wanted(names)


def _refused(error: Exception, hub_id: str, cache: Path, where: str) -> UserError:
    """The error for a failed request to the hub."""
    if isinstance(error, GatedRepoError):
        return UserError(
            where,
            f"{hub_id}: the hub gives it only to users who accepted its licence",
            fix="accept it on the page of the model, then set HF_TOKEN to a token of yours",
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError):
        return UserError(
            where,
            f"{hub_id}: the hub has no such model",
            expected="an id such as nvidia/difix_ref, or a path",
            hint=_suggestion(hub_id),
            fix="name another, or base.source: shipped",
        )
    # Without a network the exception depends on the layer that fails.
    return _absent(hub_id, cache, where, f"the hub: {type(error).__name__}")


def _suggestion(hub_id: str) -> str:
    """A hint at the published checkpoint whose name is similar, if there is one."""
    repo = hub_id.partition("@")[0]
    return "" if repo in PUBLISHED else did_you_mean(repo, list(PUBLISHED))


def _absent(hub_id: str, cache: Path, where: str, reason: str) -> UserError:
    """The error for a checkpoint that no cache has whole."""
    repo, revision = _parts(hub_id)
    folder, found = f"models--{repo.replace('/', '--')}", _cached(hub_id, cache)
    state = f"{hub_id} is neither in {cache} nor available ({reason})"
    if found:
        absent = ", ".join(lacking(names_in(found), index_of(found)))
        state = f"{hub_id} in {cache} lacks {absent}, and the rest is not available ({reason})"
    words = ["hf", "download", repo, *(["--revision", revision] if revision else [])]
    words += [word for pattern in _PATTERNS for word in ("--include", pattern)]
    command = shlex.join([*words, "--cache-dir", str(cache)])
    return UserError(
        where,
        state,
        expected=f"the folder {folder} of the hub's own cache there, or in {shared_cache()} "
        "(HF_HOME)",
        hint=(f"{_suggestion(hub_id)}\n" if _suggestion(hub_id) else "")
        + f"on a machine with a network: `{command}`",
        fix=f"copy that folder to {cache}, or set runtime.base.cache_dir to a cache that has it, "
        "or base.source: shipped",
    )
