"""Threads that share a GPU take turns on the host, so that one captures a graph undisturbed.

While a thread captures, no other may allocate, draw random numbers or start anything. A thread
keeps its turn until it waits for the device, or passes it on; who has waited longest is next.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class _Queue:
    """A lock that is given to those who ask for it in their order."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def acquire(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            own = self._in_line()
        own.acquire()

    def release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def go_round(self) -> None:
        """Let those who wait now have it first."""
        with self._guard:
            if not self._waiting:
                return
            own = self._in_line()
            self._waiting.popleft().release()
        own.acquire()

    def _in_line(self) -> threading.Lock:
        own = threading.Lock()
        own.acquire()
        self._waiting.append(own)
        return own


_TURNS = _Queue()
_MINE = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """A block whose host code runs while that of no other turn does."""
    _TURNS.acquire()
    _MINE.held = True
    try:
        yield
    finally:
        _MINE.held = False
        _TURNS.release()


@contextmanager
def gpu_lock_released() -> Iterator[None]:
    """A block that only waits: others may have the turn meanwhile."""
    if not getattr(_MINE, "held", False):
        yield
        return
    _TURNS.release()
    try:
        yield
    finally:
        _TURNS.acquire()


def pass_on() -> None:
    """Let all who wait for the turn have it before going on."""
    if getattr(_MINE, "held", False):
        _TURNS.go_round()
