"""Checkpoints of the Hugging Face hub: from its cache when they are there, else downloaded.

Only weights, configs and tokenizers are asked for, never the code that lies beside them. The only
module that imports huggingface_hub.
"""

import os
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from stages.run.errors import UserError

# A repository, and perhaps a branch, tag or commit of it.
_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
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
    """Whether a text has the form of a hub id.

    >>> is_hub_id("nvidia/difix_ref"), is_hub_id("nvidia/difix@main"), is_hub_id("shipped")
    (True, True, False)
    """
    return _ID.fullmatch(text) is not None


def snapshot(hub_id: str, cache: Path, download: bool, where: str) -> Path:
    """Folder of a checkpoint, in `cache`, which has the hub's own layout.

    What is cached is used without asking the hub, so a run repeats until `cache` is emptied. Raises
    UserError, naming the parameter `where`, when it is not cached and cannot be had.
    """
    found = _ID.fullmatch(hub_id)
    assert found, f"{hub_id!r} is no hub id"
    # What moves the bytes keeps a cache of its own, which is in the home folder otherwise.
    os.environ.setdefault("HF_XET_CACHE", str(cache.resolve() / "xet"))
    wanted = {
        "repo_id": found["repo"],
        "revision": found["revision"],
        "cache_dir": cache,
        "allow_patterns": list(_FILES),
    }
    try:
        return Path(snapshot_download(**wanted, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        if not download:
            raise _absent(hub_id, cache, where, "base.download is false") from error
    print(f"{where}: {hub_id} is not in {cache}, downloading it", flush=True)
    try:
        return Path(snapshot_download(**wanted))
    except GatedRepoError as error:
        raise UserError(
            where, f"{hub_id}: the hub gives it to those who accepted its licence",
            fix="accept it on the page of the model, then set HF_TOKEN to a token of yours",
        ) from error  # fmt: skip
    except RepositoryNotFoundError as error:
        raise UserError(
            where, f"{hub_id}: the hub has no such model",
            expected="an id such as nvidia/difix_ref, or a path",
        ) from error  # fmt: skip
    # Without a network the client fails in as many ways as there are layers below it.
    except Exception as error:
        raise _absent(hub_id, cache, where, f"the hub: {type(error).__name__}") from error


def _absent(hub_id: str, cache: Path, where: str, reason: str) -> UserError:
    repo = hub_id.partition("@")[0]
    return UserError(
        where,
        f"{hub_id} is neither in {cache} nor to be had ({reason})",
        expected=f"the folder models--{repo.replace('/', '--')} of the hub's own cache there",
        hint="on a machine with a network: "
        f'`hf download {repo} --cache-dir {cache} --include "*.json" "*.txt" "*.safetensors"`',
        fix=f"copy that folder to {cache}, or set base.cache_dir to a cache that has it, "
        "or base.source: shipped",
    )
