"""Checkpoints of the Hugging Face hub, from its cache or else downloaded.

Only weights, configs and tokenizers are requested, never the code beside them. The only module that
imports huggingface_hub.
"""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stages.difix.weights.names import HUB_ID, PUBLISHED
from stages.run.errors import UserError
from stages.run.settings.params import did_you_mean

_TIMEOUT_S = 10.0
_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*.json",
    "tokenizer/*.txt",
)


def is_hub_id(text: str) -> bool:
    """Whether a text is a well-formed hub id.

    >>> is_hub_id("nvidia/difix_ref"), is_hub_id("nvidia/difix@main"), is_hub_id("shipped")
    (True, True, False)
    """
    return HUB_ID.fullmatch(text) is not None


def absence(
    hub_id: str, cache: Path, download: bool, where: str, *, ask: bool = True
) -> UserError | None:
    """Why a checkpoint is not available: neither in `cache` nor at the hub.

    Args:
        hub_id: repository, perhaps with a revision.
        cache: folder in the hub's own layout.
        download: whether the hub may be used at all.
        where: the parameter, for the messages.
        ask: ask the hub; without, a checkpoint that may be downloaded counts as available.
    """
    try:
        snapshot_download(**_request(hub_id, cache), local_files_only=True)
        return None
    except (LocalEntryNotFoundError, ValueError, OSError):
        if not download:
            return _absent(hub_id, cache, where, "runtime.base.download is false")
    if not ask:
        return None
    request = _request(hub_id, cache)
    try:
        HfApi().model_info(request["repo_id"], revision=request["revision"], timeout=_TIMEOUT_S)
    except Exception as error:
        return _refused(error, hub_id, cache, where)
    return None


def _request(hub_id: str, cache: Path) -> dict[str, Any]:
    match = HUB_ID.fullmatch(hub_id)
    assert match, f"{hub_id!r} is no hub id"
    return {
        "repo_id": match["repo"],
        "revision": match["revision"],
        "cache_dir": cache,
        "allow_patterns": list(_FILES),
    }


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


def snapshot(hub_id: str, cache: Path, download: bool, where: str) -> Path:
    """Folder of a checkpoint in `cache`, which has the hub's own layout.

    The hub is not asked about a cached checkpoint, so a run repeats until `cache` is emptied.
    Raises UserError, naming the parameter `where`, when it is neither cached nor available.
    """
    # The transfer library has a cache of its own, by default in the home folder.
    os.environ.setdefault("HF_XET_CACHE", str(cache.resolve() / "xet"))
    request = _request(hub_id, cache)
    try:
        return Path(snapshot_download(**request, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        if not download:
            raise _absent(hub_id, cache, where, "runtime.base.download is false") from error
    print(f"{where}: {hub_id} is not in {cache}, downloading it", flush=True)
    try:
        return Path(snapshot_download(**request))
    except Exception as error:
        raise _refused(error, hub_id, cache, where) from error


def _absent(hub_id: str, cache: Path, where: str, reason: str) -> UserError:
    repo = hub_id.partition("@")[0]
    return UserError(
        where,
        f"{hub_id} is neither in {cache} nor available ({reason})",
        expected=f"the folder models--{repo.replace('/', '--')} of the hub's own cache there",
        hint=(f"{_suggestion(hub_id)}\n" if _suggestion(hub_id) else "")
        + "on a machine with a network: "
        f'`hf download {repo} --cache-dir {cache} --include "*.json" "*.txt" "*.safetensors"`',
        fix=f"copy that folder to {cache}, or set runtime.base.cache_dir to a cache that has it, "
        "or base.source: shipped",
    )
