"""A training that is stopped between two of its states."""

from collections.abc import Callable

import pytest

from stages.splat.training.trainer import Trainer

LAST_STEP = 47


def stop(train: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a training that is interrupted in LAST_STEP."""
    step = Trainer.step

    def interrupted(self: Trainer, number: int) -> object:
        if number == LAST_STEP:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
