"""Results of gsplat's example trainer: `ckpts/ckpt_29999_rank0.pt`, `ply/`, and `cfg.yml`.

Its Gaussians are in the normalised frame of the dataset that it was trained on, which no file
holds. A checkpoint is {"step", "splats": {means, quats, scales (log), opacities (logit), sh0, shN}}
and perhaps more; several processes write one file each, with a share of the Gaussians.
"""

import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.files import shaped
from stages.run.settings.readings import InvalidYaml, parse_yaml
from stages.scenes.frames import Sim3
from stages.splat.gaussians import Gaussians, check_shapes, none_finite

_LOGGER = logging.getLogger(__name__)
CHECKPOINTS = "ckpts"
_NAME = re.compile(r"ckpt_(\d+)_rank(\d+)\.pt")
_SPLATS = {
    "means": "means",
    "quats": "quats",
    "log_scales": "scales",
    "opacity_logits": "opacities",
    "sh0": "sh0",
    "shN": "shN",
}
_FIX = "name a checkpoint that gsplat's trainer wrote, or save step and these tensors alone"
_EXPECTED = 'a checkpoint of gsplat: "step" and "splats" with ' + ", ".join(_SPLATS.values())


@dataclass(frozen=True)
class GsplatConfig:
    """What `cfg.yml` says, as far as a render or an evaluation depends on it; None: not said."""

    antialiased: bool | None = None
    is_normalised: bool | None = None
    data_factor: int | None = None
    test_every: int | None = None
    match_string: str = ""
    data_dir: str = ""
    notes: tuple[str, ...] = ()


def checkpoint_files(result: Path) -> list[Path]:
    """The files of all ranks of the newest checkpoint; empty without one."""
    files = dict(_named(result / CHECKPOINTS))
    steps = [int(match[1]) for match in files.values()]
    return _ranks([path for path, match in files.items() if int(match[1]) == max(steps)])


def with_other_ranks(path: Path) -> list[Path]:
    """A checkpoint's file and those of the other processes beside it."""
    match = _NAME.fullmatch(path.name)
    if not match:
        return [path]
    return _ranks([other for other, found in _named(path.parent) if found[1] == match[1]])


def read_checkpoint(files: Sequence[Path]) -> tuple[Gaussians, int]:
    """The Gaussians of all ranks, and how many steps they were trained.

    `world_from_norm` is the identity and `antialiased` false, as neither is in the file. Raises
    UserError for files of another kind.
    """
    parts = [_read_rank(path) for path in files]
    steps = {step for _, step in parts}
    if len(steps) > 1:
        raise UserError(files[0].parent, f"ranks of steps {sorted(steps)}", expected="one step")
    with shaped(files[0], f"{_EXPECTED}, of one SH degree", _FIX):
        tensors = {name: torch.cat([part[name] for part, _ in parts]) for name in _SPLATS}
    return Gaussians(**tensors, world_from_norm=Sim3.identity(), antialiased=False), steps.pop() + 1


def read_config(folder: Path) -> GsplatConfig | None:
    """What `cfg.yml` in a result folder says; None without one. Raises UserError for another file.

    Tags of Python objects in it are read as plain values; no code runs.
    """
    path = folder / "cfg.yml"
    if not path.is_file():
        return None
    try:
        values = parse_yaml(path.read_bytes())
    except InvalidYaml as error:
        at = f"{path}:{error.line}" if error.line else path
        raise UserError(at, f"not YAML: {error}", expected="gsplat's cfg.yml") from error
    if not isinstance(values, Mapping):
        raise UserError(path, "no keys", expected="gsplat's cfg.yml")
    match_string, data_dir = values.get("match_string"), values.get("data_dir")
    return GsplatConfig(
        _flag(path, values, "antialiased"),
        _flag(path, values, "normalize_world_space"),
        _count(path, values, "data_factor", 1),
        _count(path, values, "test_every", 0),
        match_string if isinstance(match_string, str) else "",
        data_dir if isinstance(data_dir, str) else "",
        tuple(_notes(values)),
    )


def _named(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    files = sorted(folder.glob("ckpt_*_rank*.pt"))
    return [(path, match) for path in files if (match := _NAME.fullmatch(path.name))]


def _ranks(files: Sequence[Path]) -> list[Path]:
    """Files in the order of their ranks. Raises UserError when one is missing."""
    ranks = {int(_NAME.fullmatch(path.name)[2]): path for path in files}  # type: ignore[index]
    missing = sorted(set(range(max(ranks, default=-1))) - ranks.keys())
    if missing:
        raise UserError(
            files[0].parent,
            f"ranks {sorted(ranks)} of a checkpoint, without {missing}",
            expected="the files of all ranks, which each hold a share of the Gaussians",
        )
    return [ranks[rank] for rank in sorted(ranks)]


def _read_rank(path: Path) -> tuple[dict[str, Tensor], int]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # Truncated files and files of other kinds raise a dozen kinds of errors.
    except Exception as error:
        got = f"not readable as tensors ({type(error).__name__})"
        is_pickle = type(error).__name__ == "UnpicklingError"
        if is_pickle and zipfile.is_zipfile(path):
            got = "Python objects in it besides tensors, which may run code when they are read"
        fix = _FIX if is_pickle else "copy the file again"
        raise UserError(path, got, expected=_EXPECTED, fix=fix) from error
    splats = state.get("splats") if isinstance(state, dict) else None
    if not isinstance(splats, dict):
        raise UserError(path, "no splats in it", expected=_EXPECTED, fix=_FIX)
    if "features" in splats and "sh0" not in splats:
        got = "trained with appearance embeddings (app_opt), whose colours a network decodes"
        raise UserError(path, got, expected=_EXPECTED)
    with shaped(path, _EXPECTED, _FIX):
        given = {name: _dense(key, splats[key]) for name, key in _SPLATS.items()}
        step = state["step"]
        if type(step) is not int or step < 0:
            raise ValueError(f"step {step!r}")
        check_shapes(given)
    tensors = _finite(path, given)
    if "pose_adjust" in state:
        _LOGGER.info("%s: pose_adjust moves training cameras alone, so it is not read", path.name)
    return tensors, step


def _dense(key: str, value: Any) -> Tensor:
    """A tensor as float32. Raises TypeError unless it is dense, of real floats, in memory."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{key} is no tensor but {type(value).__name__}")
    if value.is_meta or value.layout != torch.strided or not value.is_floating_point():
        kind = "without data" if value.is_meta else f"{value.layout}, {value.dtype}"
        raise TypeError(f"{key} is a tensor {kind}, not a dense one of real floats")
    return value.detach().float()


def _finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The Gaussians whose numbers are all finite. Raises UserError when there is none."""
    every = [value[:, None].isfinite().flatten(1).all(1) for value in tensors.values()]
    finite = torch.stack(every).all(0)
    if not finite.any():
        raise UserError(path, none_finite(len(finite)), expected=_EXPECTED, fix=_FIX)
    if not finite.all():
        text = "%s: %d of %d Gaussians are not finite and left out"
        _LOGGER.warning(text, path.name, int((~finite).sum()), len(finite))
    return {name: value[finite] for name, value in tensors.items()}


def _flag(path: Path, values: Mapping[str, Any], key: str) -> bool | None:
    """A switch of the configuration; None without it. Raises UserError for another value."""
    value = values.get(key)
    if value is not None and value not in (True, False):
        raise UserError(f"{path}  {key}", repr(value), expected="true or false")
    return None if value is None else bool(value)


def _count(path: Path, values: Mapping[str, Any], key: str, least: int) -> int | None:
    """A number of the configuration; None without it. Raises UserError for another value."""
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{path}  {key}", repr(value), expected=f"a number from {least}")
    return int(value)


def _notes(values: Mapping[str, Any]) -> list[str]:
    """What the trainer rendered with and we do not."""
    notes = []
    if values.get("camera_model", "pinhole") != "pinhole":
        notes.append(f"camera_model {values['camera_model']} is rendered as pinhole")
    keys = ("with_ut", "with_eval3d", "use_bilateral_grid", "app_opt")
    return notes + [f"{key} is not applied" for key in keys if values.get(key) is True]
