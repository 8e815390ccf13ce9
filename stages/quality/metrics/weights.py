"""LPIPS backbones in data/weights, checked and converted to one format.

weights.json says for each net whether it was found, and its kind of source or why it is missing.
"""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from stages.quality.config import WeightsConfig
from stages.quality.metrics import backbones, packaged
from stages.quality.metrics.backbones import BACKBONES
from stages.run.errors import UserError
from stages.run.files import file_hash, read_json, shaped, write_json

MARKER = "weights.json"
_URL = "https://download.pytorch.org/models/"


def collect(config: WeightsConfig, folder: Path) -> dict[str, dict[str, Any]]:
    """Write `<net>.safetensors` for each net that is found, and weights.json; return the latter.

    Raises UserError for a file that exists but is broken or of another net.
    """
    marker = {net: _collect_one(net, config, folder) for net in config.nets}
    write_json(folder / MARKER, marker)
    return marker


def absence(folder: Path, net: str) -> str | None:
    """Why a net has no weights, or None if it has."""
    marker = read_json(folder / MARKER)
    if net not in marker:
        return f"no weights of {net}: weights.nets names {', '.join(marker) or 'none'}"
    with _marked(folder):
        return None if marker[net]["found"] else f"no weights of {net}: {marker[net]['reason']}"


def fingerprint(folder: Path, net: str) -> str:
    """The first 8 digits of the SHA-256 of a net's file."""
    with _marked(folder):
        return str(read_json(folder / MARKER)[net]["sha256"])[:8]


def _marked(folder: Path) -> AbstractContextManager[None]:
    expected = "found, from, sha256 and reason of each net"
    return shaped(folder / MARKER, expected, "run `dvc repro -f weights`")


def load_features(folder: Path, net: str) -> dict[str, Tensor]:
    """Features written by `collect`. Raises UserError when there are none."""
    reason = absence(folder, net)
    if reason:
        raise UserError(folder, reason, fix=remedy(net))
    return backbones.read_features(_file(folder, net), net)


def remedy(net: str) -> str:
    """The fix for missing weights."""
    return (
        f"have {net} in weights.nets, and {BACKBONES[net].published} in torchvision's cache or at "
        "weights.path (params.yaml); then `dvc repro -f weights` and `dvc repro`"
    )


def _file(folder: Path, net: str) -> Path:
    return folder / f"{net}.safetensors"


def _collect_one(net: str, config: WeightsConfig, folder: Path) -> dict[str, Any]:
    reasons = []
    for source, find in _SOURCES.items():
        result = find(net, config)
        if isinstance(result, Path):
            read = packaged.read_features if source == "package" else backbones.read_features
            _file(folder, net).write_bytes(save(read(result, net)))
            digest = file_hash(_file(folder, net))
            return {"found": True, "from": source, "sha256": digest, "reason": None}
        reasons.append(result)
    return {"found": False, "from": None, "sha256": None, "reason": "; ".join(reasons)}


# Each source gives a file, or a reason without paths of this machine, because the reason becomes
# part of the data.


def _in_path(net: str, config: WeightsConfig) -> Path | str:
    """The file weights.path, or the net's file in that folder."""
    if not config.path:
        return "weights.path is empty"
    path = Path(config.path).expanduser()
    if path.is_dir():
        return backbones.find_file(net, path) or f"no file of {net} in the folder weights.path"
    if not path.is_file():
        raise UserError("params.yaml  weights.path", f"{config.path!r}: no such file or folder")
    if len(config.nets) > 1:
        raise UserError(
            "params.yaml  weights.path",
            f"one file for {len(config.nets)} nets",
            expected=f"a folder with files of {', '.join(config.nets)}",
        )
    return path


def _in_package(net: str, config: WeightsConfig) -> Path | str:
    return packaged.find_file(net)


def _in_cache(net: str, config: WeightsConfig) -> Path | str:
    missing = f"no {BACKBONES[net].patterns[0]} in torchvision's cache"
    return backbones.find_file(net, _cache()) or missing


def _by_download(net: str, config: WeightsConfig) -> Path | str:
    """torchvision's file in its cache after a download; a missing network is no error."""
    if not config.download:
        return "weights.download is false"
    published = BACKBONES[net].published
    try:
        with _time_limit(config.runtime.timeout_s):
            torch.hub.load_state_dict_from_url(
                _URL + published,
                map_location="cpu",
                progress=False,
                check_hash=True,
                weights_only=True,
            )
    except (OSError, RuntimeError) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        return f"the download failed ({why})"
    return _cache() / published


_SOURCES = {
    "path": _in_path,
    "package": _in_package,
    "torchvision cache": _in_cache,
    "download": _by_download,
}


def _cache() -> Path:
    """torchvision's folder of downloads; `$TORCH_HOME` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Limit torch's download, which sets no timeout and would hang in a silent network."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
