"""Matches of descriptors in COLMAP's database by another matcher than COLMAP's, and progress.

Matchers that need a GPU are passed in by the entries, as this package does without torch.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.scenes.colmap_import import pycolmap

_LOGGER = logging.getLogger(__name__)

_LINE_EVERY_S = 20.0

# SIFT descriptors [N, 128] of an image by its id.
ReadDescriptors = Callable[[int], NDArray[np.uint8]]
# Rows [M, 2] of each pair of images, in the order of the pairs, which pass Lowe's ratio test.
Matcher = Callable[
    [ReadDescriptors, Sequence[tuple[int, int]], float], Iterator[NDArray[np.uint32]]
]


def match_pairs(
    path: Path, pairs: Sequence[tuple[str, str]], max_ratio: float, matcher: Matcher
) -> None:
    """Write the matches of pairs of images by name into the database; none is verified."""
    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        numbers = [(ids[a], ids[b]) for a, b in pairs]
        found = matcher(lambda image: database.read_descriptors(image).data, numbers, max_ratio)
        for (a, b), rows in zip(numbers, found, strict=True):
            database.write_matches(a, b, rows)


def match_all_pairs(path: Path, max_ratio: float, matcher: Matcher) -> None:
    """Write the matches of every pair of images of the database; none is verified."""
    with pycolmap.Database.open(path) as database:
        names = sorted(image.name for image in database.read_all_images())
    match_pairs(path, list(combinations(names, 2)), max_ratio, matcher)


@contextmanager
def progress_logged(
    path: Path, table: Literal["descriptors", "matches"], total: int, what: str
) -> Iterator[None]:
    """Log every 20 s how many rows COLMAP has written into a table while the block runs."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LINE_EVERY_S):
            count = _rows(path, table)
            if count is not None:
                _LOGGER.info("%s: %d of %d", what, count, total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_COUNT = (
    "import sqlite3, sys; path, table = sys.argv[1:]; "
    "database = sqlite3.connect(path + '?mode=ro', uri=True); "
    "print(database.execute(f'SELECT COUNT(*) FROM {table}').fetchone()[0])"
)


def _rows(path: Path, table: str) -> int | None:
    """Rows of a table; None while there is none, or it is locked.

    A process of its own counts them: pycolmap has an SQLite of its own, whose locks on the file
    Python's would release (fcntl), and COLMAP would end with a bus error.
    """
    counted = subprocess.run(
        [sys.executable, "-c", _COUNT, path.resolve().as_uri(), table],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(counted.stdout) if counted.returncode == 0 else None
