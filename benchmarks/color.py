"""What colour per camera gains where cameras are tinted, and what it costs where they are not.

    python -m benchmarks.color --scenes SCENE CALIBRATED [SCENE CALIBRATED ...]
        [--recipes off 0.0005,1 ...] [--gains 0 0.2 0.1] [--offset 0.02] [--seeds 1] [--out FILE]

The first timestamp of each scene is trained by params.yaml without colour per camera and by each
pair of `train.color_opt_lr` and `train.color_opt_reg`, on images of which each camera, targets
included, has a gain and an offset per channel, uniform and independent; a gain of 0 is no tint.
PSNR at target views, dB, means over seeds of the training and of the tints:

psnr        against the target's image in its own tint, which nobody can know
neighbours  against its image in the mean tint of its two nearest source cameras, as it is rendered
cc_psnr     against its image after a colour correction
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.command_line import launch
from benchmarks.machine import processor
from stages.quality.metrics.color_corrected import cc_psnr
from stages.quality.metrics.psnr import psnr
from stages.run.files import write_json
from stages.run.settings.params import Params
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat import color
from stages.splat.config import TrainConfig
from stages.splat.raster import choose_backend
from stages.splat.render import render
from stages.splat.training.timestamps import train_view
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

Row = dict[str, Any]
_KEYS = ("scene", "gain", "recipe", "psnr", "neighbours", "cc_psnr")
_OFF = "off"


@dataclass(frozen=True, eq=False)
class Case:
    """Views of a scene and the points that training starts from."""

    name: str
    train: Sequence[TrainView]
    held_out: Sequence[TrainView]
    points: tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Print the table and, with `--out`, write its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, nargs="+", required=True)
    parser.add_argument("--recipes", nargs="+", help="off, or a rate and a weight: 0.0005,1")
    parser.add_argument(
        "--gains", type=float, nargs="+", default=[0.0, 0.2, 0.1], help="largest, from 1"
    )
    parser.add_argument("--offset", type=float, default=0.02, help="largest offset, of [0, 1]")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = Params.read().section("train", TrainConfig)
    if args.steps:
        config = config.model_copy(update={"max_steps": args.steps})
    recipes = args.recipes or [_OFF, f"{config.color_opt_lr:g},{config.color_opt_reg:g}"]
    rows: list[Row] = []
    print(line({key: key for key in _KEYS}), flush=True)
    for scene, calibrated in zip(args.scenes[::2], args.scenes[1::2], strict=True):
        case = read_case(Scene.read(scene), calibrated, config)
        for gain in args.gains:
            size = gain, args.offset if gain else 0.0
            for recipe in recipes:
                runs = [_measured(case, size, recipe, config, seed) for seed in range(args.seeds)]
                means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
                rows.append({"scene": case.name, "gain": gain, "recipe": recipe, **means})
                print(line(rows[-1]), flush=True)
    rows += _means(rows)
    for row in rows[len(rows) - len(args.gains) * len(recipes) :]:
        print(line(row), flush=True)
    if args.out:
        tints = {"offset": args.offset, "seeds": args.seeds}
        write_json(
            args.out, {"processor": processor(), "steps": config.steps, **tints} | {"rows": rows}
        )


def read_case(scene: Scene, calibrated: Path, config: TrainConfig) -> Case:
    """The first timestamp of a prepared scene, its target cameras as calibrated."""
    calibration, timestamp = read_calibration(calibrated), scene.timestamps[0]
    as_sources = replace(calibration, sources=calibration.targets)
    train, held_out = (
        [train_view(v, one, config) for v in scene.views(role, timestamp) if v.name in one.sources]
        for role, one in (("source", calibration), ("target", as_sources))
    )
    return Case(scene.name, train, held_out, calibration.points(timestamp))


def random_tints(count: int, size: tuple[float, float], seed: int) -> Tensor:
    """Maps [count, 3, 4] of colours: gains within size[0] of 1, offsets within size[1] of 0."""
    random, maps = np.random.default_rng(seed), color.identity(count, "cpu")
    gains, offsets = (random.uniform(-limit, limit, (count, 3)) for limit in size)
    maps[:, range(3), range(3)] += torch.from_numpy(gains).float()
    maps[:, :, 3] = torch.from_numpy(offsets).float()
    return maps


def tinted(views: Sequence[TrainView], tints: Tensor) -> list[TrainView]:
    """Views through maps [V, 3, 4] of their colours."""
    pairs = zip(views, tints, strict=True)
    return [replace(v, image=color.applied(v.image, tint).clamp(0, 1)) for v, tint in pairs]


def neighbours_tints(
    train: Sequence[TrainView], tints: Tensor, views: Sequence[TrainView]
) -> Tensor:
    """The maps [V, 3, 4] of views between training views with these maps."""
    known = color.table([view.camera for view in train], tints)
    return torch.from_numpy(np.stack([color.map_at(known, v.camera) for v in views])).float()


def line(row: Row) -> str:
    """A row of the table."""
    texts = [f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key]) for key in _KEYS]
    return f"{texts[0]:<24}" + "".join(f"{text:>12}" for text in texts[1:])


def _measured(
    case: Case, size: tuple[float, float], recipe: str, config: TrainConfig, seed: int
) -> dict[str, float]:
    """Metrics of the target views after a training."""
    changes: dict[str, Any] = {"seed": config.seed + seed, "color_opt": recipe != _OFF}
    if recipe != _OFF:
        changes |= zip(
            ("color_opt_lr", "color_opt_reg"), map(float, recipe.split(",")), strict=True
        )
    config = config.model_copy(update=changes)
    tints = random_tints(len(case.train) + len(case.held_out), size, seed)
    own, others = tints[: len(case.train)], tints[len(case.train) :]
    backend, _ = choose_backend(config.backend)
    trainer = Trainer(tinted(case.train, own), *case.points, config, backend)
    for step in range(config.steps):
        trainer.step(step)
    gaussians = trainer.gaussians(config.steps)
    truths = {
        "psnr": tinted(case.held_out, others),
        "neighbours": tinted(case.held_out, neighbours_tints(case.train, own, case.held_out)),
    }
    renders = _batch([render(gaussians, v.camera, backend).rgb.cpu() for v in case.held_out])
    images = {key: _batch([view.image for view in views]) for key, views in truths.items()}
    values = {key: psnr(images[key], renders) for key in images}
    values["cc_psnr"] = cc_psnr(images["psnr"], renders)
    return {key: float(value.mean()) for key, value in values.items()}


def _batch(images: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(images)).permute(0, 3, 1, 2)


def _means(rows: Sequence[Row]) -> list[Row]:
    """Rows of the mean over scenes."""
    groups: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["gain"], row["recipe"]), []).append(row)
    return [
        {"scene": "mean", "gain": gain, "recipe": recipe}
        | {key: float(np.mean([row[key] for row in group])) for key in _KEYS[3:]}
        for (gain, recipe), group in groups.items()
    ]


if __name__ == "__main__":
    launch(main)
