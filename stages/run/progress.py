"""Progress of long loops: a bar on a terminal, one plain line every 10 s anywhere else."""

import resource
import sys
import time
from contextlib import ExitStack

from tqdm import tqdm

from stages.run.at_work import others_speak, spoke

LINE_EVERY_S = 10.0


class Progress:
    """Reports a loop of `total` steps under a name; use as a context."""

    def __init__(self, name: str, total: int, start: int = 0):
        self.name, self.total, self.start = name, total, start
        self.began = self.reported = time.monotonic()
        self.bar = (
            tqdm(total=total, initial=start, desc=name, leave=False)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "Progress":
        self._alone = ExitStack()
        if self.bar is not None:
            self._alone.enter_context(others_speak())
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        self._alone.close()

    def due(self) -> bool:
        """Whether `report` would show anything now: numbers are fetched from a GPU only then."""
        return self.bar is not None or time.monotonic() - self.reported >= LINE_EVERY_S

    def report(self, done: int, **numbers: float | int) -> None:
        """Show how many steps are done, with some numbers beside it."""
        text = " ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(text)
            return
        if time.monotonic() - self.reported < LINE_EVERY_S:
            return
        self.reported = time.monotonic()
        per_step = (self.reported - self.began) / max(done - self.start, 1)
        left_s = per_step * (self.total - done)
        print(
            f"{self.name}: {100 * done / self.total:.0f} % ({done}/{self.total}) {text} "
            f"memory {peak_memory_gib():.2f} GiB, {left_s:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
        spoke()


def peak_memory_gib() -> float:
    """Most memory this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
