"""Notes that every stage would repeat."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.run.notes import NOTES_ENV, unshown

SHOW = "import sys; from stages.run.notes import unshown; print(*unshown(sys.argv[1:]), sep='|')"


def test_each_process_of_a_run_shows_what_none_has_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NOTES_ENV, str(tmp_path / "notes"))

    def shown(*notes: str) -> str:
        words = [sys.executable, "-c", SHOW, *notes]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    assert shown("no weights", "0 pauses nothing") == "no weights|0 pauses nothing"
    assert shown("no weights", "another", "0 pauses nothing") == "another"
    assert shown("no weights") == ""


def test_stage_by_hand_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTES_ENV, raising=False)
    assert unshown(["no weights"]) == unshown(["no weights"]) == ["no weights"]
