"""The lock of threads that share a GPU: host code of one runs at a time, as recording graphs needs.

While a thread records a graph, no other may allocate, draw random numbers or start anything. A
thread keeps the lock until it waits for the device or passes it on; who has waited longest is next.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class _FairLock:
    """A lock that waiting threads acquire in the order in which they asked."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def acquire(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            own = self._enqueue()
        own.acquire()

    def release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def pass_on(self) -> None:
        """Let all who wait now have it first."""
        with self._guard:
            if not self._waiting:
                return
            own = self._enqueue()
            self._waiting.popleft().release()
        own.acquire()

    def is_awaited(self) -> bool:
        with self._guard:
            return bool(self._waiting)

    def _enqueue(self) -> threading.Lock:
        own = threading.Lock()
        own.acquire()
        self._waiting.append(own)
        return own


_LOCK = _FairLock()
_THREAD = threading.local()


@contextmanager
def gpu_lock() -> Iterator[None]:
    """A block whose host code runs while no other thread holds the lock."""
    _LOCK.acquire()
    _THREAD.holds_lock = True
    try:
        yield
    finally:
        _THREAD.holds_lock = False
        _LOCK.release()


@contextmanager
def gpu_lock_released() -> Iterator[None]:
    """A block that only waits: other threads may hold the lock meanwhile."""
    if not getattr(_THREAD, "holds_lock", False):
        yield
        return
    _LOCK.release()
    try:
        yield
    finally:
        _LOCK.acquire()


def pass_gpu_lock() -> None:
    """Let all threads that wait for the lock have it before going on."""
    if getattr(_THREAD, "holds_lock", False):
        _LOCK.pass_on()


def others_wait() -> bool:
    """Whether other threads wait for the lock, as those of trainings that share the GPU do."""
    return _LOCK.is_awaited()
