"""Links among the outs and deps of stages whose targets are gone: DVC fails to compare these."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.run.errors import UserError, raise_all

_LINKS = "checkpoints"  # the stage whose outs are links; all others are the user's


def require_targets(
    stages: Iterable[Any],  # DVC's, upstream ones first
) -> None:
    """Raise UserError that names every link to what is gone, and how to go on."""
    fixes: dict[Path, str] = {}
    for stage in stages:
        fix = "link another"
        if stage.addressing == _LINKS:
            fix = f"name another in params.yaml and run `dvc repro -f {_LINKS}`"
        for path in (Path(one.fs_path) for one in (*stage.outs, *stage.deps) if one.is_in_repo):
            if path.is_symlink() and not path.exists():
                fixes.setdefault(path, fix)
    raise_all(
        UserError(
            os.path.relpath(path),
            f"a link to {os.readlink(path)}, which is gone; put it back, or {fix}",
        )
        for path, fix in fixes.items()
    )
