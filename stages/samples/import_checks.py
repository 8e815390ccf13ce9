"""Checks of the imports that params.yaml names, before anything is computed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.run.errors import UserError


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
