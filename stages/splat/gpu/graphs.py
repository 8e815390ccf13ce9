"""Recording of device work as CUDA graphs that share one pool of memory, and waiting for it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from stages.splat.gpu.lock import gpu_lock_released


class Recorder:
    """Records graphs that run one after the other; a new one takes the memory of the last."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # A pool ends with its last graph; this one holds it for those to come.
        self._keeper = self.record(lambda: torch.zeros((), device="cuda"))

    def record(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """What `work` starts on the device, to be replayed on any stream; nothing runs yet."""
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
    """Wait for what this thread's stream has been given; other threads have the turn meanwhile."""
    end = torch.cuda.current_stream().record_event()
    with gpu_lock_released():
        end.synchronize()


@cache
def _side_stream() -> torch.cuda.Stream:
    """Where graphs are recorded. There are 32 streams, and a shared one would be recorded too."""
    return torch.cuda.Stream()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Python collects no garbage: to free another graph, or pinned memory, would end a capture."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
