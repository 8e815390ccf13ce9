"""Curves in DVCLive's layout, which the DVC extension of VS Code shows.

dvc.yaml and DVC's experiments, which DVCLive changes by default, stay as they are.
"""

import re
from pathlib import Path
from typing import Any

from stages.run.curves import Curve, Series, after, agrees
from stages.run.errors import UserError
from stages.run.files import read_table
from stages.run.user_paths import make_target


class DvcliveFolder:
    """A folder for each curve, below one that the user names."""

    def __init__(self, folder: Path):
        """Raises UserError without the package, or where nothing can be written."""
        try:
            from dvclive import Live
        except ModuleNotFoundError as error:
            raise UserError(
                "DVCLive", "the package dvclive is missing", fix="run `uv pip install dvclive`"
            ) from error
        make_target(folder)
        self._live, self._folder = Live, folder

    def send(self, curve: Curve) -> int:
        """Add what is new; a run with another beginning replaces that of the same name."""
        folder = self._folder / re.sub(r"[^A-Za-z0-9_.-]+", "-", curve.name)
        before = {key: _read(folder, key) for key in curve.series}
        same = agrees(before[curve.key], curve.series[curve.key])
        new: dict[int, dict[str, float]] = {}
        for key, series in curve.series.items():
            for step, value in after(before[key] if same else [], series):
                new.setdefault(step, {})[key] = value
        if not new:
            return 0
        live: Any = self._live(
            str(folder), dvcyaml=None, save_dvc_exp=False, report=None, resume=same
        )
        for step in sorted(new):
            live.step = step
            for key, value in new[step].items():
                live.log_metric(key, value)
        live.make_summary()
        return sum(map(len, new.values()))


def _read(folder: Path, key: str) -> Series:
    path = folder / "plots" / "metrics" / f"{key}.tsv"
    rows = read_table(path, set()) if path.is_file() else []
    return [(int(row["step"]), row[key]) for row in rows]
