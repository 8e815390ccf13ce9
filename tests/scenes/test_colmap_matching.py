"""Progress lines while COLMAP fills its database."""

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from stages.scenes import colmap_matching


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(colmap_matching, "_LINE_EVERY_S", 0.02)
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
