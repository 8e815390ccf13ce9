"""Checks of the imports that params.yaml names, before anything is computed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.settings.params import no_effect


def import_errors(
    values: Mapping[str, Any], raw_folder: Callable[[str], Path]
) -> Iterator[UserError]:
    """What is wrong with the datasets of the study's imports, without decoding images."""
    if not {"study", "imports", "manifest"} <= values.keys():
        return
    study, entries = values["study"], values["imports"]
    by_split = {"train": study.tuning_imports, "test": study.internal_eval_imports}
    for split, names in by_split.items():
        for name in (name for name in names if name in entries):
            # Only these need numpy and torch, which a study without imports does not load here.
            from stages.samples.importing import read_foreign

            try:
                read_foreign(raw_folder(name), entries[name], split, values["manifest"].prompt)
            except UserError as error:
                yield error


def import_notes(
    values: Mapping[str, Any], where: Callable[[tuple[str, ...]], str]
) -> Iterator[str]:
    """A line for each import without a role, and for ways of degrading where none is rendered.

    `values` are the valid sections of params.
    """
    study, pairs = values["study"], values["pairs"]
    for name in values["imports"]:
        if name not in (*study.tuning_imports, *study.internal_eval_imports):
            reason = "neither study.tuning_imports nor study.internal_eval_imports names it"
            yield no_effect(where(("imports", name)), reason)
    degrading = {
        ("degradation", "sparse"): pairs.degradation.sparse,
        ("degradation", "cycle"): pairs.degradation.cycle,
        ("leave_out",): pairs.leave_out,
    }
    for keys, value in degrading.items():
        if value and not study.tuning_scenes:
            yield no_effect(
                where(("pairs", *keys)), "study.tuning_scenes is empty, imports stay as they are"
            )
