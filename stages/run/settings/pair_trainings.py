"""How often stage `pairs` trains: its model of the params and the plan count alike."""

from collections.abc import Mapping
from typing import Any


def pair_trainings(pairs: Mapping[str, Any]) -> int:
    """How often the Gaussians of a scene are trained for its samples, beside stage `train`.

    Args:
        pairs: the section, or that of an older version, which may lack keys.

    >>> pair_trainings({"leave_out": ["4", ["16", "40"]], "degradation": {"cycle": 0.1}})
    3
    """
    ways = *pairs.get("degradation", {}).values(), pairs.get("poses") == "given"
    return len(pairs.get("leave_out", ())) + sum(map(bool, ways))
