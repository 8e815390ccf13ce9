"""Signals to stop: Ctrl-C, SIGTERM, and SIGUSR1, which clusters send before a time limit.

A stopped run ends with PREEMPTED: by `Preemption` where a state can be saved, else by `Stopping`.
A second Ctrl-C kills. Ctrl-C in a terminal reaches every process of a command, so children are
sent SIGTERM: it must not count as their second Ctrl-C.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

import stages

PREEMPTED = os.EX_TEMPFAIL  # 75: run again to go on
_CLEANUP_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """Raised in the main thread by a signal to stop where there is no state to save."""


class _Listener:
    """Handles the signals until `_restore`; use as a context in the main thread."""

    def __init__(self) -> None:
        self.noticed = False
        self._interrupts = 0
        self._number = 0

    def _listen(self) -> None:
        self.before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self.noticed, self._number = True, number
        self._act()

    def _act(self) -> None:
        raise NotImplementedError


class Preemption(_Listener):
    """Notices the signals, so that a loop can save its state and end.

    At the end of its block the earlier handlers come back; they are called for a signal that came
    too late for the loop.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        """`then` is called at each signal, in the main thread."""
        super().__init__()
        self.then = then
        self._listen()

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        before = self.before.get(self._number)
        if error is None and callable(before):
            before(self._number, None)

    def _act(self) -> None:
        self.then()


class Stopping(_Listener):
    """Ends a command at a signal by raising `Stopped`, so that it cleans up."""

    current: "Stopping | None" = None

    def __init__(self) -> None:
        super().__init__()
        self.is_late = False
        self._raised_s = -_CLEANUP_S
        self.active = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Stopping":
        if self.active:
            self._listen()
            Stopping.current = self
        return self

    def __exit__(self, *_: object) -> None:
        if not self.active:
            return
        Stopping.current = None
        self._restore()
        for number, handler in self.before.items():
            if handler is stages.stop_early:  # this process is at its end
                signal.signal(number, signal.SIG_IGN)

    def _act(self) -> None:
        # A second signal, such as one passed on, must not interrupt the cleanup.
        now_s = time.monotonic()
        if self.is_late or now_s - self._raised_s < _CLEANUP_S:
            return
        self._raised_s = now_s
        raise Stopped


def too_late() -> None:
    """Ignore signals to stop from now on: results are whole, and states are being removed."""
    if Stopping.current is not None:
        Stopping.current.is_late = True
