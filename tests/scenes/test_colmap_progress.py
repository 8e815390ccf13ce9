"""Progress lines while COLMAP fills its database, which pycolmap has open."""

import fcntl
import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from stages.scenes import colmap_matching

_LOCKED = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("locked")
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(colmap_matching, "_LINE_EVERY_S", 0.1)
    caplog.set_level(logging.INFO, logger=colmap_matching.__name__)


def wait_for_line(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Fails after ten seconds without the line."""
    deadline = time.monotonic() + 10
    while text not in caplog.messages:
        assert time.monotonic() < deadline, caplog.messages
        time.sleep(0.01)


def test_lines_count_what_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a folder" / "database.db"
    path.parent.mkdir()
    with colmap_matching.progress_logged(path, "descriptors", 7, "images"):
        time.sleep(0.05)
        assert not path.exists()  # a reader makes no database
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE descriptors (image_id INTEGER)")
            database.execute("INSERT INTO descriptors VALUES (1), (2), (3)")
            database.commit()
            wait_for_line(caplog, "images: 3 of 7")
            database.execute("INSERT INTO descriptors VALUES (4)")
            database.commit()
            wait_for_line(caplog, "images: 4 of 7")
    count = len(caplog.messages)
    time.sleep(0.1)
    assert len(caplog.messages) == count


def test_an_error_of_the_block_ends_the_lines(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="broken"),
        colmap_matching.progress_logged(tmp_path / "database.db", "matches", 1, "pairs"),
    ):
        raise ValueError("broken")


def test_rows_are_counted_while_the_database_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    with (
        caplog.at_level(logging.INFO),
        pycolmap.Database.open(path) as database,
        colmap_matching.progress_logged(path, "matches", 4, "matched pairs of images"),
    ):
        for other in (2, 3, 4):
            database.write_matches(1, other, np.zeros((5, 2), np.uint32))
        end = time.monotonic() + 30
        while "matched pairs of images: 3 of 4" not in caplog.text and time.monotonic() < end:
            time.sleep(0.1)
    assert "matched pairs of images: 3 of 4" in caplog.text


def test_counting_releases_no_lock_of_this_process(tmp_path: Path) -> None:
    """Closing a file releases every lock that the process has on it, whoever took them."""
    path = tmp_path / "a.db"
    with pycolmap.Database.open(path):
        pass
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_SH)
        assert colmap_matching._rows(path, "matches") == 0
        other = [sys.executable, "-c", _LOCKED, str(path)]
        assert subprocess.run(other, capture_output=True, check=True).stdout == b"locked\n"


def test_what_is_not_there_is_not_counted(tmp_path: Path) -> None:
    assert colmap_matching._rows(tmp_path / "none.db", "matches") is None
