"""A scene's timestamps in several processes, each of which trains its share of them.

A child is the entry that starts it, with `--timestamps` and `--into`.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.run.process.gpus import use_gpus
from stages.run.process.parallel import run_all
from stages.splat.config import TrainConfig

if TYPE_CHECKING:
    from stages.scenes.scene import Scene

_LOGGER = logging.getLogger(__name__)


def parse_share(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of an entry, with the options of its children; selects their GPU."""
    parser.add_argument("--timestamps", nargs="+", help="train these only (needs --into)")
    parser.add_argument("--into", type=Path, help="folder for the results of --timestamps")
    parser.add_argument("--gpu", help="the GPU for --timestamps, by its number or its name")
    args = parser.parse_args()
    if (args.timestamps is None) != (args.into is None):
        parser.error("--timestamps and --into go together")
    if args.timestamps and args.gpu:
        use_gpus([args.gpu])
    return args


def train_share(
    scene: "Scene", calibrated: Path, timestamps: Sequence[str], folder: Path, config: TrainConfig
) -> None:
    """Train timestamps in this process; results and fit.json go to `<folder>/<timestamp>`."""
    from stages.splat.raster import choose_backend
    from stages.splat.training.placement import side_by_side, streams, warm_starts
    from stages.splat.training.timestamps import train_in

    warm = warm_starts(folder, scene.timestamps, config)
    side_by_side(
        timestamps,
        lambda name, preemption: train_in(
            folder / name, scene, calibrated, name, config, warm[name], preemption
        ),
        streams(config, choose_backend(config.backend)[0]),
    )


def train_shares(
    scene: "Scene", calibrated: Path, folder: Path, config: TrainConfig, entry: Sequence[str]
) -> None:
    """Train all timestamps into `<folder>/<timestamp>`, here on one core, else in children.

    Args:
        scene: a prepared scene.
        calibrated: folder of its calibration.
        folder: for the results.
        config: section `train`.
        entry: module and arguments of the children, which call `train_share`.
    """
    from stages.splat.raster import choose_backend
    from stages.splat.training.placement import place, rounds
    from stages.splat.training.timestamps import require_memory

    # Here, because parallel builds of the kernels break each other.
    backend, reason = choose_backend(config.backend)
    for part in rounds(scene.timestamps, config):
        placement = place(part, config, backend)
        _LOGGER.info("%s: %s (%s), float32, %s", scene.name, backend, reason, placement)
        require_memory(scene, config, placement.at_once)
        if placement.processes == 1 and not placement.gpus:
            train_share(scene, calibrated, part, folder, config)
            continue
        run_all(placement.commands(entry, folder), placement.processes)
