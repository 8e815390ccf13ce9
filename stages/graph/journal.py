"""Results that dvc.lock does not have yet: a small file for each, taken in together.

At a thousand scenes dvc.lock has 40 MB, so one job per stage that writes it would hold DVC's lock
for a second each. A file is written when the result is in the cache, and is removed when dvc.lock
has it, both while DVC's lock is held. So a process that dies at any time loses nothing: its result
is in the cache, in the journal, or in dvc.lock.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import load_yaml, loads_yaml, modify_yaml

from stages.graph import lock_file
from stages.graph.waiting import RESULTS
from stages.run.files import read_json, text_hash, write_json

# What dvc.lock had for the stage when its result was added; where it has another one by now,
# somebody has run the stage since, and the older result is dropped.
_BEFORE = "before"


class Journal:
    """The journal of a repository. Use it while DVC's lock is held."""

    def __init__(self, root: Path):
        self.root = root

    def add(self, lock: Path, stages: Mapping[str, Mapping[str, Any]]) -> bool:
        """Note values of stages for a lock file; False if they are none of DVC's layout."""
        blocks = {name: lock_file.block(name, value) for name, value in stages.items()}
        if None in blocks.values():
            return False
        for name, block in blocks.items():
            before = text_hash(lock_file.stored(lock, name))
            value = {"lock": str(lock.relative_to(self.root)), "name": name, "block": block}
            write_json(self._file(lock, name), {**value, _BEFORE: before})
        return True

    def has(self, lock: Path, name: str) -> bool:
        """Whether a stage's result waits."""
        return self._file(lock, name).is_file()

    def age_s(self, lock: Path) -> float:
        """Seconds since a lock file was written; infinite if there is none."""
        return time.time() - lock.stat().st_mtime if lock.is_file() else float("inf")

    def take_in(self) -> bool:
        """Write all results into their lock files; whether there were any.

        Raises DVC's errors for a lock file that DVC cannot read either; the journal stays then.
        """
        files = sorted((self.root / RESULTS).glob("*.json"))
        waiting = [read_json(path) for path in files]
        for name in {one["lock"] for one in waiting}:
            blocks = {one["name"]: one for one in waiting if one["lock"] == name}
            self._write(self.root / name, blocks)
        for path in files:
            path.unlink(missing_ok=True)
        return bool(files)

    def _write(self, lock: Path, waiting: Mapping[str, Mapping[str, str]]) -> None:
        text = lock_file.read(lock)
        blocks = {
            name: one["block"]
            for name, one in waiting.items()
            if text_hash(lock_file.entry(text or "", name)) == one[_BEFORE]
        }
        if len(blocks) < len(waiting) and text != "" and lock_file.entries(text or "") is None:
            # Raises for a conflict or no text: what differs there is no newer result.
            load_yaml(lock)
        if blocks and not lock_file.record_blocks(lock, blocks):
            with modify_yaml(lock) as data:
                data.setdefault("schema", "2.0")
                stages = data.setdefault("stages", {})
                for name, block in blocks.items():
                    stages[name] = loads_yaml(block)[name]

    def _file(self, lock: Path, name: str) -> Path:
        key = json.dumps([str(lock.relative_to(self.root)), name])
        return self.root / RESULTS / f"{text_hash(key)[:32]}.json"
