"""A line now and then while a stage works and says nothing: some calls cannot be counted."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 10.0
_last_line_s = 0.0
_active = False
_speaking = 0  # loops and children that report on themselves


def spoke() -> None:
    """Remember that something was shown just now."""
    global _last_line_s
    _last_line_s = time.perf_counter()


@contextmanager
def others_speak() -> Iterator[None]:
    """No lines within the block: what runs there shows its own progress."""
    global _speaking
    _speaking += 1
    try:
        yield
    finally:
        _speaking -= 1
        spoke()


@contextmanager
def at_work(name: str, elsewhere: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Show `name: 40 s` on stderr whenever nothing was shown for LINE_EVERY_S of the block.

    While `elsewhere` says that another process does the work, no time passes. A block within
    another has no lines of its own.
    """
    global _active
    if _active:
        yield
        return
    began, ended = time.perf_counter(), threading.Event()
    _active = True
    spoke()

    def watch() -> None:
        nonlocal began
        while not ended.wait(min(1.0, LINE_EVERY_S / 4)):
            now = time.perf_counter()
            if elsewhere():
                began = now
            if _speaking or began == now:
                spoke()
            elif now - _last_line_s >= LINE_EVERY_S:
                print(f"{name}: {now - began:.0f} s", file=sys.stderr, flush=True)
                spoke()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        _active = False
        ended.set()
        thread.join()
