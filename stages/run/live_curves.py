"""Curves in DVCLive while a stage runs, if the user wants them; nothing depends on them.

`SPLATFIX_DVCLIVE=<folder>` turns them on. The stages' TSV files hold the same curves at the end.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import safe_name

VARIABLE = "SPLATFIX_DVCLIVE"


class LiveCurve:
    """Sends rows to DVCLive in a folder of its own; without SPLATFIX_DVCLIVE it does nothing.

    dvc.yaml and DVC's experiments, which DVCLive changes by default, stay as they are.
    """

    def __init__(self, name: str, active: bool = True):
        """`active` is false in processes that write nothing."""
        folder = os.environ.get(VARIABLE) if active else None
        self._live = _live(Path(folder) / safe_name(name, VARIABLE)) if folder else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Log the numbers of a row at its `step`."""
        if self._live is None:
            return
        self._live.step = row["step"]
        for name, value in row.items():
            if name != "step" and value is not None:
                self._live.log_metric(name, value)
        self._live.make_summary()


def _live(folder: Path) -> Any:
    try:
        from dvclive import Live
    except ModuleNotFoundError as error:
        raise UserError(
            VARIABLE,
            "DVCLive is not installed",
            expected="the package dvclive",
            fix=f"run `uv pip install dvclive`, or unset {VARIABLE}",
        ) from error
    return Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None, resume=True)
