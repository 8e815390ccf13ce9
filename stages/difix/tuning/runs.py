"""A tuning run from an untuned fixer to a tuned one, in one process or several.

Every process calls `tune`; the first alone writes.
"""

import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stages.difix.config import TuneConfig, inert_keys
from stages.difix.network.precision import choose_device
from stages.difix.tuning.finetune import Tuner
from stages.difix.tuning.inputs import TuningData, check_inputs, initial_fixer
from stages.difix.tuning.losses import FixerLoss
from stages.difix.tuning.validation import Sample, Validator
from stages.run.checkpoint import Checkpoint
from stages.run.process.memory import require_for
from stages.run.process.parallel import run_all
from stages.samples.dataset import TuningDataset
from stages.samples.stream import SampleStream
from stages.scenes.study.overlap import Subject

STAGE, ITEM = "tune", "fixer"


def tune(
    data: TuningData,
    base: Path,
    weights: Path,
    config: TuneConfig,
    checkpoint: Checkpoint,
    held_out: Callable[[], Iterable[Subject]] = tuple,
) -> Tuner:
    """Tune a fixer and return the tuner that has the result.

    Raises UserError when the fixer was trained on one of the `held_out` scenes.

    Args:
        data: training and validation samples.
        base: folder of the untuned fixer.
        weights: folder of LPIPS backbones; without them the loss is L2 alone.
        config: section `tune`.
        checkpoint: resume state.
        held_out: gives reserved and measured scenes; called only for a fixer that names its own.
    """
    device, _ = choose_device(config.device, "tune.device")
    fixer = initial_fixer(base, config.init_from)
    if fixer.training_record.scenes:
        origin = "tune.init_from" if config.init_from else base
        fixer.training_record.refuse_overlap(origin, held_out(), "reserved or measured")
    check_inputs(fixer, data, config)
    loss = FixerLoss(config.losses, weights, device, config.seed)
    train, test = (
        TuningDataset(
            split,
            config.resolution,
            config.multiple,
            config.runtime.cache_mib,
            fixer.spec.warped,
        )
        for split in (data.train, data.test)
    )
    stream = SampleStream(train, config, config.multiple, fixer.spec.reference)
    validated = _spread(len(test), config.validation_samples or len(test))
    in_memory = [test.size(index) for index in validated for _ in data.test[index].paths]
    require_for(in_memory, 1, "tune.validation_samples", "lower it, or tune.resolution")
    samples = [Sample(*test.load(index)) for index in validated]
    on_sheet = _spread(len(samples), config.samples)
    validator = Validator(samples, loss.perceptual, device, on_sheet, fixer.spec.reference)
    tuner = Tuner(
        fixer,
        config,
        loss,
        validator,
        device,
        draw_latent=config.latent == "sample",
        keep_best=config.keep == "best",
        base_decay=config.base_decay,
        rank=config.rank,
    )
    if tuner.is_main:
        for note in [*train.size_notes(), *_inert_notes(config), *fixer.training_record.notes]:
            print(f"tune: {note}")
    tuner.run(stream, checkpoint)
    return tuner


def run_processes(module: str, count: int) -> None:
    """Run an entry in `count` processes of this host, connected through torch's variables.

    They end when this process ends. torch's own launcher would survive when this process is
    killed, and so would its workers.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common["LOCAL_WORLD_SIZE"] = str(count)
    ranks = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    run_all([[sys.executable, "-m", module]] * count, count, ranks)


def _inert_notes(config: TuneConfig) -> Iterator[str]:
    for key, reason in inert_keys(config):
        yield f"tune.{key} has no effect: {reason}"


def _spread(count: int, limit: int) -> list[int]:
    """Up to `limit` indices of `count`, spread evenly.

    >>> _spread(10, 3), _spread(2, 4)
    ([0, 3, 6], [0, 1])
    """
    number = min(count, limit)
    return [index * count // number for index in range(number)]
