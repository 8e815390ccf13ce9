"""Trainings that are under way or were stopped, by the progress beside their resume states.

Whoever watches needs no port and no part of the training: its files alone, also over a shared disk.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.run.artefacts import FIT, PROGRESS, STATE
from stages.run.errors import UserError
from stages.run.files import read_json, shaped
from stages.run.process.locks import holder_of
from stages.run.user_paths import run_name

_LOGGER = logging.getLogger(__name__)

CAMERAS = "cameras"  # key of the progress of a training of Gaussians
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Training:
    """One training as of its last state."""

    folder: Path  # <work root>/<stage>/<item>/<key>
    written: int  # ns, when its progress was
    name: str
    step: int
    steps: int
    rows: Mapping[str, list[Row]]  # `curve`, `evaluations` or `validations`, as far as it has them
    progress: Mapping[str, Any]  # all of the file

    @classmethod
    def read(cls, path: Path) -> "Training":
        """Read a progress file. Raises UserError for a half-written or foreign one."""
        written = path.stat().st_mtime_ns
        value = read_json(path)
        with shaped(path, "what a training writes beside its state", "wait for its next state"):
            name, step, steps = str(value["name"]), int(value["step"]), int(value["steps"])
            return cls(path.parent, written, name, step, steps, _rows(value), value)

    @property
    def stage(self) -> str:
        """Whose state it is, such as train, captures or distill."""
        return self.folder.parent.parent.name

    @property
    def item(self) -> str:
        """The scene, the scene and method, or a name made from the result folder."""
        return self.folder.parent.name

    @property
    def label(self) -> str:
        """Stage and name, by which users choose."""
        distilled = self.item.rpartition(".")[2] if self.stage == "distill" else ""
        return f"{self.stage}: {self.name}" + (f" {distilled}" if distilled else "")

    @property
    def state(self) -> Path:
        """The resume state, which has the tensors."""
        return self.folder / STATE

    @property
    def is_there(self) -> bool:
        """Whether its state is: a finished run removes it."""
        return self.state.is_file()

    @property
    def result(self) -> Path:
        """The file of the finished Gaussians; the work folder where it is not known."""
        return self.folder / str(self.progress.get("result", ""))

    @property
    def is_finished(self) -> bool:
        """Whether the result is in the place of the state."""
        return not self.is_there and self.result.is_file()

    def with_result(self) -> "Training":
        """A finished training at its last step, with the rows beside its result."""
        path = self.result.parent / FIT
        with shaped(path, "curve and evaluations"):
            return replace(self, step=self.steps, rows=_rows(read_json(path)))

    def concerns(self, what: str) -> bool:
        """Whether a part of its label, or a result folder, means this training."""
        return what in self.label or self.item == run_name(Path(what))

    def words(self) -> str:
        """What is known of it: step, loss, PSNR, number of Gaussians, and whether it goes on."""
        parts = [f"step {self.step} of {self.steps}"]
        curve, evaluations = self.rows["curve"], self.rows["evaluations"]
        if curve and curve[-1].get("loss") is not None:
            parts.append(f"loss {curve[-1]['loss']:g}")
        for row in evaluations:
            if row["step"] == evaluations[-1]["step"]:
                parts.append(f"{row['split']} {row['psnr']:.2f} dB PSNR at step {row['step']}")
        return ", ".join([*parts, self._status()])

    def _status(self) -> str:
        if not self.is_there:
            return "finished" if self.is_finished else "ended"
        if self.step >= self.steps:
            return "trained; its results are being measured or written"
        is_stopped = holder_of(self.folder) is None
        return "stopped; the same command goes on with it" if is_stopped else "goes on"


def _rows(value: Mapping[str, Any]) -> dict[str, list[Row]]:
    kinds = ("curve", "evaluations", "validations")
    rows = {kind: [dict(row) for row in value.get(kind, [])] for kind in kinds}
    for row in (row for kind in kinds for row in rows[kind]):
        int(row["step"])
    return rows


class Trainings:
    """All trainings below a work folder, looked at now and then; ended ones are remembered."""

    def __init__(self, root: Path, what: str = "", *, with_key: str = ""):
        """`what` chooses by `Training.concerns`, `with_key` by what the progress has."""
        self.root, self.what, self.with_key = root, what, with_key
        self.known: dict[str, Training] = {}  # by label, the newest of each
        self._read: dict[Path, int] = {}  # when what was read had been written, ns
        self._ended: set[str] = set()  # labels
        self._faults: dict[Path, str] = {}

    def look(self) -> None:
        """Read the progress files that are new. What cannot be read is reported once."""
        for path in sorted(self.root.glob(f"*/*/*/{PROGRESS}")):
            try:
                self._take(path)
            except FileNotFoundError:
                continue  # ended this moment
            except UserError as error:
                self._report(path, error)
        for label, training in self.known.items():
            if training.is_finished and label not in self._ended:
                self._ended.add(label)
                try:
                    self.known[label] = training.with_result()
                except UserError as error:
                    self._report(training.result, error)

    def _report(self, path: Path, error: UserError) -> None:
        if self._faults.get(path) != str(error):
            self._faults[path] = str(error)
            _LOGGER.warning("%s", error)

    def _take(self, path: Path) -> None:
        if self._read.get(path) == path.stat().st_mtime_ns:
            return
        training = Training.read(path)
        self._read[path] = training.written
        before = self.known.get(training.label)
        is_newer = before is None or not before.is_there or before.written < training.written
        has_key = not self.with_key or self.with_key in training.progress
        if is_newer and has_key and training.concerns(self.what):
            self.known[training.label] = training
            self._ended.discard(training.label)

    def newest(self) -> Training | None:
        """The one whose state was written last; one that goes on before all that ended."""
        return max(self.known.values(), key=lambda one: (one.is_there, one.written), default=None)
