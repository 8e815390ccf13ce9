"""When results of jobs are written into dvc.lock: many at once, and at the latest when asked."""

from pathlib import Path

from stages.graph.waiting import waits

# dvc.lock is written at most this often; until then the journal has the results.
RECORD_EVERY_S = 30.0


def record_all(root: Path) -> None:
    """Write all results that dvc.lock of a workspace lacks into it."""
    if waits(root):
        # Importing DVC takes a second.
        from stages.graph.pipeline import Pipeline

        Pipeline(root).record()
