"""`dvc repro` itself, in this process, with the place of each stage in the plan before its name."""

import logging
import os
from collections.abc import Collection, Sequence

from dvc.cli import main as dvc

from stages.run.at_work import at_work

# Those that say that a stage runs, comes from the run cache, or is up to date.
_LOGGERS = ("dvc.stage.run", "dvc.stage.cache", "dvc.stage")


class Numbering(logging.Filter):
    """`[3/80] ` before DVC's message on a stage: the third of 80 planned ones that it reached."""

    def __init__(self, planned: Collection[str]):
        super().__init__()
        self._planned, self._reached = frozenset(planned), dict[str, int]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Number the message where its argument is a planned stage; every message is kept."""
        stage = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if isinstance(stage, str) and stage in self._planned:
            number = self._reached.setdefault(stage, len(self._reached) + 1)
            record.msg = f"[{number}/{len(self._planned)}] {record.msg}"
        return True


def reproduce(targets: Sequence[str], planned: Collection[str]) -> int:
    """Run `dvc repro TARGETS`; returns its exit code.

    Args:
        targets: Stages; none for all.
        planned: Names of the stages that would run, which are counted.
    """
    numbering = Numbering(planned)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(numbering)
    # `stages.graph.repository` quietens DVC while it only looks.
    logging.getLogger("dvc").setLevel(logging.INFO)
    try:
        with at_work("DVC compares, hashes or copies data", _has_children):
            return dvc(["repro", *targets])
    finally:
        for logger in loggers:
            logger.removeFilter(numbering)


def _has_children() -> bool:
    """Whether the command of a stage runs."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
