"""Being told to stop: Ctrl-C, SIGTERM, and SIGUSR1, which clusters send ahead of a limit.

A run that is told so ends with PREEMPTED: `Preemption` where a state can be saved, else `Stopping`.
A second Ctrl-C kills. A terminal's Ctrl-C reaches every process of a command, so what is passed on
to children is SIGTERM: it must not count as their second one.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

import stages

PREEMPTED = os.EX_TEMPFAIL  # 75: run again to go on
_TIDY_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """Raised wherever the main thread is when it is told to stop and has no state to save."""


class _Heard:
    """Hears the signals for as long as it lasts; use as a context in the main thread."""

    def __init__(self) -> None:
        self.noticed = False
        self._interrupts = 0
        self._number = 0

    def _listen(self) -> None:
        self.before = {number: signal.signal(number, self._hear) for number in SIGNALS}

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self.noticed, self._number = True, number
        self._act()

    def _act(self) -> None:
        raise NotImplementedError


class Preemption(_Heard):
    """Notices the signals, so that a loop can save its state and end.

    As a context it gives the signals back to whoever had them, and tells him of one that came too
    late for the loop to heed it.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        """`then` is called at each signal, in the main thread."""
        super().__init__()
        self.then = then
        self._listen()

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._give_back()
        before = self.before.get(self._number)
        if error is None and callable(before):
            before(self._number, None)

    def _act(self) -> None:
        self.then()


class Stopping(_Heard):
    """Ends a whole command where it is told to stop: by `Stopped`, so that it tidies up."""

    current: "Stopping | None" = None

    def __init__(self) -> None:
        super().__init__()
        self.is_late = False
        self._raised_s = -_TIDY_S
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
        self._give_back()
        for number, handler in self.before.items():
            if handler is stages.stop_early:  # this process has nothing more to do
                signal.signal(number, signal.SIG_IGN)

    def _act(self) -> None:
        # What is being tidied up is left alone by a second signal, such as the one passed on.
        now_s = time.monotonic()
        if self.is_late or now_s - self._raised_s < _TIDY_S:
            return
        self._raised_s = now_s
        raise Stopped


def too_late() -> None:
    """From now on a wish to stop is not heeded: results are whole, and states are being removed."""
    if Stopping.current is not None:
        Stopping.current.is_late = True
