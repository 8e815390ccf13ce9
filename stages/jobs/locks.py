"""One process at a time, over all that name the same file; a holder's death gives it back."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until nobody else holds the file, and hold it as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        # By lockf and not flock: it reaches over hosts that share a network file system.
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
