"""Threads that share a GPU take turns on the host: one runs until it waits for the device.

While a thread captures a graph no other may allocate, draw random numbers or start anything; and
as each starts a hundred steps before it waits, the device always has work of several.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
_MINE = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """A block whose host code runs while that of no other turn does."""
    with _LOCK:
        _MINE.held = True
        try:
            yield
        finally:
            _MINE.held = False


@contextmanager
def given_away() -> Iterator[None]:
    """A block that only waits: others may have the turn meanwhile."""
    if not getattr(_MINE, "held", False):
        yield
        return
    _LOCK.release()
    try:
        yield
    finally:
        _LOCK.acquire()
