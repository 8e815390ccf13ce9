"""From pairs and an untuned fixer to a tuned one: what stage `tune` puts together.

All processes of a run come through here; the first alone writes.
"""

import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.difix.config import TuneConfig, inert
from stages.difix.network.model import Fixer
from stages.difix.network.precision import choose_device
from stages.difix.network.training_record import TrainingRecord, read_training_record
from stages.difix.tuning.finetune import CURVE_COLUMNS, Row, Tuner
from stages.difix.tuning.losses import FixerLoss
from stages.difix.tuning.validation import MEASURES, Sample, Validator
from stages.difix.weights.card import write_card
from stages.difix.weights.folders import TEXT_FOLDERS, read_folder, read_part, write_folder
from stages.difix.weights.pkl import SUFFIXES, read_pkl
from stages.difix.weights.state_dicts import fixer_from_published
from stages.run import layout
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, text_hash, write_tsv
from stages.run.process.memory import require_for
from stages.run.process.parallel import run_all
from stages.samples.dataset import Pairs, common_prompt, read_split
from stages.samples.index import INFO, read_index
from stages.samples.photographed import paired
from stages.samples.stream import SampleStream
from stages.scenes.study.overlap import Subject

STAGE, ITEM = "tune", "fixer"
ROWS = ("identity", "untuned", "untuned_withheld", "tuned", "tuned_withheld")
VALIDATION_COLUMNS = ["step", *MEASURES, *(f"identity_{name}" for name in MEASURES)]


class Data:
    """Both splits of the dataset, checked, and what names their content."""

    def __init__(self, path: Path):
        """Raises UserError when samples are missing or broken, see `read_split`."""
        self.path = path
        self.train, self.test = read_split(path, "train"), read_split(path, "test")
        self.prompt = common_prompt([*self.train, *self.test], path)

    def digest(self) -> str:
        """SHA-256 over the list of samples and the content of every image."""
        images = sorted({one for triple in (*self.train, *self.test) for one in triple.paths})
        return text_hash(file_hash(self.path), *(file_hash(path) for path in images))

    def taught(self) -> TrainingRecord:
        """The scenes that the samples to learn from are of, by their pairs; else their images."""
        scenes, others = {}, set()
        for triple in self.train:
            folder = triple.image.parents[1]
            if folder.parent == layout.pairs("x").parent and (folder / INFO).is_file():
                scenes[folder.name] = folder
            else:
                shown = (triple.target, triple.reference)
                others |= {file_hash(path) for path in shown if path is not None}
        found = [paired(read_index(folder)) for folder in scenes.values()]
        return TrainingRecord(
            (*found, *([Subject("", "", tuple(sorted(others)))] if others else []))
        )


def tune(
    data: Data,
    base: Path,
    weights: Path,
    config: TuneConfig,
    checkpoint: Checkpoint,
    measured: Callable[[], Iterable[Subject]] = tuple,
) -> Tuner:
    """Tune the fixer in the folder `base`; the result is in the tuner that did it.

    `weights` is the folder of LPIPS backbones; without them L2 is all that teaches. Raises
    UserError when the fixer already learnt from a scene of `measured`.
    """
    device, _ = choose_device(config.device, "tune.device")
    fixer = start(base, config.init_from)
    if fixer.taught.scenes:
        origin = "tune.init_from" if config.init_from else base
        fixer.taught.refuse(origin, measured(), "reserved or measured")
    _check(fixer, data, config)
    loss = FixerLoss(config.losses, weights, device, config.seed)
    train, test = (
        Pairs(split, config.resolution, config.multiple, config.cache_mib)
        for split in (data.train, data.test)
    )
    stream = SampleStream(train, config, config.multiple, fixer.spec.reference)
    checked = _spread(len(test), config.validation_samples or len(test))
    held = [test.size(index) for index in checked for _ in data.test[index].paths]
    require_for(held, 1, "tune.validation_samples", "lower it, or tune.resolution")
    samples = [Sample(*test.load(index)) for index in checked]
    shown = _spread(len(samples), config.samples)
    validator = Validator(samples, loss.perceptual, device, shown, fixer.spec.reference)
    tuner = Tuner(
        fixer, config, loss, validator, device,
        draw_latent=config.latent == "sample", keep_best=config.keep == "best",
    )  # fmt: skip
    if tuner.is_main:
        for note in [*train.size_notes(), *_inert_notes(config), *fixer.taught.notes]:
            print(f"tune: {note}")
    tuner.run(stream, checkpoint)
    return tuner


def start(base: Path, init_from: str) -> Fixer:
    """The fixer of the folder `base`, with the weights of `init_from` if that is not empty.

    Raises UserError when these are of another architecture.
    """
    fixer = read_folder(base)
    if not init_from:
        return fixer
    path = Path(init_from).expanduser()
    spec = fixer.spec.changed(origin=f"{fixer.spec.origin}, from {path.name}")
    if path.suffix in SUFFIXES:
        told = spec.reference, spec.prompt, fixer.prompt, spec.origin
        return read_pkl(path, base, *told)
    if not path.is_dir():
        raise UserError(
            "tune.init_from", f"{init_from}: no such folder or file",
            expected="a fixer's folder, or a .pkl of the published trainer",
        )  # fmt: skip
    parts = {part: read_part(path, part) for part in ("unet", "vae")}
    started = fixer_from_published(spec, parts, fixer.prompt, path)
    started.taught = read_training_record(path)
    return started


def write_fixer(
    tuner: Tuner,
    data: Data,
    base: Path,
    folder: Path,
    checkpoint: Checkpoint,
    verdict: str,
    warnings: Sequence[str] = (),
) -> None:
    """Write the tuned fixer, its card, its sheets of samples and what taught it into `folder`."""
    tuner.fixer.taught = tuner.fixer.taught.and_by(data.taught())
    has_text = all((base / name).is_dir() for name in TEXT_FOLDERS)
    tuner.fixer.spec = tuner.fixer.spec.changed(origin=f"{tuner.fixer.spec.origin}, tuned")
    write_folder(tuner.fixer, folder, base if has_text else None)
    write_card(
        folder, tuner.fixer.spec, tuner.config, scalars(tuner, data), data.digest(), verdict,
        tuner.fixer.taught, warnings,
    )  # fmt: skip
    if checkpoint.kept.is_dir():
        shutil.copytree(checkpoint.kept, folder / "samples")


def scalars(tuner: Tuner, data: Data) -> dict[str, Any]:
    """What metrics/tune.json holds: measures of each row, and counts."""
    found = {row["row"]: row for row in tuner.validations}
    unknown = tuner.fixer.taught.unknown
    rows = {name: {key: found[name][key] for key in MEASURES} for name in ROWS if name in found}
    return (
        rows
        | {
            "steps": tuner.config.steps,
            "kept_step": found["tuned"]["step"],
            "train_pairs": len(data.train),
            "test_pairs": len(data.test),
            "weights_moved": float(f"{tuner.moved():.4g}"),
        }
        | ({"taught_unknown": "; ".join(unknown)} if unknown else {})
    )


def write_curves(tuner: Tuner, loss: Path, validation: Path) -> None:
    """Write the curve of the loss, and that of the internal-eval scene beside its input."""
    write_tsv(loss, tuner.curve, CURVE_COLUMNS)
    write_tsv(validation, _validation_curve(tuner.validations), VALIDATION_COLUMNS)


def run_processes(module: str, count: int) -> None:
    """Run an entry in `count` processes of this host that find each other as torch has it.

    Ends as they end; what stops this process stops them. torch's own launcher would stay alive
    when this process is killed, and its processes with it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common["LOCAL_WORLD_SIZE"] = str(count)
    ranks = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    run_all([[sys.executable, "-m", module]] * count, count, ranks)


def checkpoint_key(data: Data, base: Path, config: TuneConfig) -> tuple[str, ...]:
    """All that decides what a run does: params, samples and the fixer it starts from."""
    origin = ""
    if config.init_from:
        given = Path(config.init_from).expanduser()
        origin = folder_hash(given) if given.is_dir() else origin
        origin = file_hash(given) if given.is_file() else origin
    return config.model_dump_json(), data.digest(), folder_hash(base), origin


def _check(fixer: Fixer, data: Data, config: TuneConfig) -> None:
    """Raise UserError when the dataset or the params do not fit the fixer."""
    if config.multiple % fixer.spec.factor:
        raise UserError(
            "tune.multiple", str(config.multiple),
            expected=f"a multiple of {fixer.spec.factor}, by which this fixer's VAE shrinks",
        )  # fmt: skip
    if data.prompt and data.prompt != fixer.spec.prompt:
        raise UserError(
            data.path, f"the prompt {data.prompt!r}",
            expected=f"{fixer.spec.prompt!r}, whose embedding the fixer keeps",
            fix="set base.prompt and the pairs' prompt alike",
        )  # fmt: skip


def _inert_notes(config: TuneConfig) -> Iterator[str]:
    for key, reason in inert(config):
        yield f"tune.{key} has no effect: {reason}"


def _spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices of `count`, spread evenly.

    >>> _spread(10, 3), _spread(2, 4)
    ([0, 3, 6], [0, 1])
    """
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]


def _validation_curve(validations: Sequence[Row]) -> list[Row]:
    """The fixer's rows by step, untuned first, each beside the input's."""
    identity = next(row for row in validations if row["row"] == "identity")
    beside = {f"identity_{name}": identity[name] for name in MEASURES}
    steps = {
        row["step"]: {"step": row["step"], **{name: row[name] for name in MEASURES}, **beside}
        for row in validations
        if row["row"] in ("untuned", "fixed", "tuned")
    }
    return [steps[step] for step in sorted(steps)]
