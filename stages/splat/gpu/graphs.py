"""Recording of device work as CUDA graphs that share one memory pool, and waiting for it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from stages.splat.gpu.lock import gpu_lock_released

_MOST_RESERVED = 1.25  # times the memory in use


class GraphRecorder:
    """Records graphs that run one after the other; a new one takes the memory of the last."""

    def __init__(self) -> None:
        self._keeper: torch.cuda.CUDAGraph | None = None
        self.renew()

    def release(self) -> None:
        """Give the memory of graphs that are gone, and what else is free, back to the device.

        The pool of growing graphs is otherwise full of pieces that are too small for the next.
        Nothing is recorded until `renew`.
        """
        self._keeper = None
        # It waits for the device, and other threads' trainings with it.
        if torch.cuda.memory_reserved() > _MOST_RESERVED * torch.cuda.memory_allocated():
            torch.cuda.empty_cache()

    def renew(self) -> None:
        """Release, and begin with a new pool."""
        self.release()
        self._pool = torch.cuda.graph_pool_handle()
        # A pool ends with its last graph; this one keeps it for later ones.
        self._keeper = self.record(lambda: torch.zeros((), device="cuda"))

    def record(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """A graph of what `work` starts on the device; it runs when replayed, on any stream."""
        graph, now, side = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), _side_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side), _without_collection():
            # Other threads may wait for their streams meanwhile, hence not the default mode.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        now.wait_stream(side)
        return graph


def wait() -> None:
    """Wait for this thread's stream; other threads may hold the GPU lock meanwhile."""
    end = torch.cuda.current_stream().record_event()
    with gpu_lock_released():
        end.synchronize()


@cache
def _side_stream() -> torch.cuda.Stream:
    """Where graphs are recorded. CUDA has 32 streams; a shared one would be recorded too."""
    return torch.cuda.Stream()


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage collection: freeing another graph, or pinned memory, would end a recording."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
