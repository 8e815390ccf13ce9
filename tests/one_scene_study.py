"""A study of one scene that is evaluated, plainly: no roles, no fixers, no seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SCENE = "lab_talk"


def study_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """This repository's params with `entry`, of section `scenes`, as the only scene."""
    params = YAML().load(ROOT / "params.yaml")
    params["scenes"] = {SCENE: {**entry, "group": "lab"}}
    params["demo"]["scenes"] = [SCENE] if entry["source"] == "demo" else []
    for role in ("tuning_scenes", "internal_eval_scenes", "reserved_scenes", "fixers", "seeds"):
        params["study"][role] = []
    for role in ("scenes", "evaluated_scenes", "downstream_scenes"):
        params["study"][role] = [SCENE]
    params["study"] |= {"methods": ["none"], "subject": "none"}
    return params
