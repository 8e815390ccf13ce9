"""What pose optimisation costs or gains at held-out views, by its rate and the poses' origin.

    python -m benchmarks.pose_optimisation [--captures DATASET ...] [--scenes SCENE CALIBRATED ...]
        [--rates off 1e-5 1e-4 5e-4 auto] [--seeds 2] [--steps N] [--px 240] [--out FILE]

Each capture is a COLMAP dataset of which every eighth view is held out; each scene is a prepared
folder followed by its calibration, whose target cameras are held out, at its first timestamp. All
train by params.yaml on images at most `--px` wide. `psnr` is measured at the calibrated poses,
`aligned` after these were fitted to the frozen Gaussians, `train` at the learnt poses; means over
seeds, dB, and `seeds` is the largest difference between two seeds' `psnr`. `moved` is the learnt
correction of a camera against the others, degrees, and `error` what is left to its true pose, where
that is known: means over cameras after their best similarity.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command_line import launch
from benchmarks.machine import processor
from stages.run.files import write_json
from stages.run.settings.params import Params
from stages.scenes.cameras import Array, Camera, rotation_angle_deg
from stages.scenes.captures.config import CaptureTrainConfig
from stages.scenes.dataset import Dataset
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.captures.training import split
from stages.splat.captures.training import train_view as capture_view
from stages.splat.config import TrainConfig
from stages.splat.raster import choose_backend
from stages.splat.training.evaluation import evaluate
from stages.splat.training.timestamps import train_view
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

Row = dict[str, Any]
_KEYS = ("case", "rate", "psnr", "aligned", "train", "moved_deg", "error_deg", "seeds")


@dataclass(frozen=True, eq=False)
class Case:
    """Views of one case, and the points that training starts from."""

    name: str
    train: Sequence[TrainView]
    held_out: Sequence[TrainView]
    points: tuple[Array, np.ndarray]
    true: Sequence[Camera] = ()  # poses of the views to train on


def main() -> None:
    """Print the table and, with `--out`, write its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captures", type=Path, nargs="*", default=[])
    parser.add_argument("--scenes", type=Path, nargs="*", default=[])
    parser.add_argument("--rates", nargs="+", default=["off", "1e-5", "1e-4", "5e-4", "auto"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--px", type=int, default=240)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = Params.read().section("train", TrainConfig)
    if args.steps:
        config = config.model_copy(update={"max_steps": args.steps})
    rows: list[Row] = []
    print(line({key: key for key in _KEYS}), flush=True)
    for case in _cases(args, config):
        for rate in args.rates:
            rows.append(_row(case, rate, config, range(42, 42 + args.seeds)))
            print(line(rows[-1]), flush=True)
            if args.out:
                write_json(args.out, {"processor": processor(), "rows": rows})


def _cases(args: argparse.Namespace, config: TrainConfig) -> Iterator[Case]:
    for folder in args.captures:
        yield _capture(Dataset.read(folder), config, args.px)
    for scene, calibrated in zip(args.scenes[::2], args.scenes[1::2], strict=True):
        yield _scene(Scene.read(scene), calibrated, config, args.px)


def _capture(dataset: Dataset, config: TrainConfig, px: int) -> Case:
    chosen = split(dataset.views, CaptureTrainConfig().test_every, "")
    small = _shrunk(config, dataset.views[0].camera.width, px)
    groups = [
        [capture_view(view, small) for view in group] for group in (chosen.train, chosen.held_out)
    ]
    return Case(dataset.name, *groups, (dataset.points, dataset.colors))


def _scene(scene: Scene, calibrated: Path, config: TrainConfig, px: int) -> Case:
    calibration, timestamp = read_calibration(calibrated), scene.timestamps[0]
    sources, targets = (
        [view for view in scene.views(role, timestamp) if view.name in cameras]
        for role, cameras in (("source", calibration.sources), ("target", calibration.targets))
    )
    small = _shrunk(config, sources[0].camera.width, px)
    small = small.model_copy(update={"pose_opt": True, "pose_opt_lr": "auto"})
    train = [train_view(view, calibration, small) for view in sources]
    as_sources = replace(calibration, sources=calibration.targets)
    held_out = [train_view(view, as_sources, small) for view in targets]
    true = [view.camera for view in sources]
    return Case(calibrated.name, train, held_out, calibration.points(timestamp), true)


def _shrunk(config: TrainConfig, width: int, px: int) -> TrainConfig:
    return config.model_copy(update={"data_factor": -(-width // px)})


def _row(case: Case, rate: str, config: TrainConfig, seeds: Sequence[int]) -> Row:
    runs = [_measured(case, rate, config.model_copy(update={"seed": seed})) for seed in seeds]
    means = {key: round(float(np.mean([run[key] for run in runs])), 3) for key in runs[0]}
    psnr = [run["psnr"] for run in runs]
    return {"case": case.name, "rate": rate, **means, "seeds": round(max(psnr) - min(psnr), 3)}


def line(row: Row) -> str:
    """A row of the table."""
    numbers = [f"{row[key]:>10}" if key in row else 10 * " " for key in _KEYS[1:]]
    return "".join([f"{row['case']:<24}", *numbers])


def _measured(case: Case, rate: str, config: TrainConfig) -> dict[str, float]:
    changes: dict[str, Any] = {"pose_opt": rate != "off", "pose_opt_lr": "auto"}
    views = case.train
    if rate == "auto":
        changes["pose_opt_reg"] = "auto"
    else:
        views = [replace(view, pose_covariance=None) for view in views]
        changes["pose_opt_lr"] = 1e-5 if rate == "off" else float(rate)
    config = config.model_copy(update=changes)
    backend, _ = choose_backend(config.backend)
    trainer = Trainer(views, *case.points, config, backend)
    for step in range(config.steps):
        trainer.step(step)
    learnt = trainer.learnt_cameras()
    # Of Gaussians that are not trained further, `evaluate` aligns where poses are optimised.
    trainer.config = config.model_copy(update={"pose_opt": True})
    by_split = {row["split"]: row["psnr"] for row in evaluate(trainer, case.held_out, config.steps)}
    measured = {
        "psnr": by_split["test"],
        "aligned": by_split["test_aligned"],
        "train": by_split["train"],
        "moved_deg": _angle_deg(learnt, [view.camera for view in case.train]),
    }
    return measured | ({"error_deg": _angle_deg(learnt, case.true)} if case.true else {})


def _angle_deg(a: Sequence[Camera], b: Sequence[Camera]) -> float:
    """Mean angle between the rotations of cameras after their best similarity."""
    b_from_a, _ = fit_sim3_from_cameras(a, b)
    pairs = zip(map(b_from_a.apply_camera, a), b, strict=True)
    rotations = [(one.cam_from_world[:3, :3], two.cam_from_world[:3, :3]) for one, two in pairs]
    return float(np.mean([rotation_angle_deg(*pair) for pair in rotations]))


if __name__ == "__main__":
    launch(main)
