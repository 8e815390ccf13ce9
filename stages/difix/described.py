"""Words for a fixer that other outputs repeat: what it is, what it was trained on, and at what
size images pass through it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.difix.config import RANDOM, SHIPPED, TRAINED, BaseConfig, FixerConfig
from stages.difix.network.training_record import TUNING_FILE
from stages.run.files import read_json
from stages.run.methods import TUNED
from stages.run.settings.params import Params

_BASES = {
    SHIPPED: ("the small fixer of this repository", "trained on procedural worlds"),
    TRAINED: ("the small fixer, trained here", "trained on procedural worlds"),
    RANDOM: ("a fixer of random weights", "not trained"),
}


def fixer_facts(
    params: Params, fixers: Sequence[str], views: Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """The untuned fixer, what it was trained on and the size of its use; numbers of the tuning.

    Both are empty without fixers; the second one where none was tuned, or it is not known how.

    Args:
        params: All of them.
        fixers: Those of the study.
        views: Folder of views that the tuned fixer fixed.
    """
    if not fixers:
        return {}, {}
    base = params.section("base", BaseConfig)
    name, trained = _BASES.get(base.source, (base.source, "trained as published"))
    used_on = used_words(params.section("difix", FixerConfig))
    numbers = views / TUNING_FILE
    tuning = read_json(numbers) if TUNED in fixers and numbers.is_file() else {}
    return {"fixer": name, "fixer_trained": trained, "used_on": used_on}, tuning


def used_words(config: FixerConfig) -> str:
    """The size at which images pass through a fixer.

    >>> used_words(FixerConfig()), used_words(FixerConfig(resolution=576))
    ('whole images at their size', 'whole images, shorter side 576 px')
    """
    size = f", shorter side {config.resolution} px" if config.resolution else " at their size"
    return (f"tiles of {config.tile_px} px" if config.tile_px else "whole images") + size
