"""Gaussians that inputs of tuning samples are rendered from, and the cameras they live among.

Those of stage `train`; or, trained here with its params, others on true poses or without one of
the source cameras. What is trained here resumes after a kill and is no output of any stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stages.run.files import whole_folder, work_root
from stages.samples.index import chosen
from stages.scenes.config import PairsConfig
from stages.scenes.frames import Sim3
from stages.scenes.poses.calibration import Calibration, write_calibration
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig
from stages.splat.training.timestamps import train_timestamp


@dataclass(frozen=True, eq=False)
class Rig:
    """Gaussians by timestamp under `splats`; `calibration.targets` are asked for.

    With `train` they are yet to be trained, on the sources of the calibration.
    """

    calibration: Calibration
    splats: Path
    frame_from_est: Sim3  # frame of these cameras from that of the calibration on disk
    train: TrainConfig | None = None
    left_out: bool = False  # the target is a source camera that they do without

    def ready(self, scene: Scene, timestamp: str) -> Path:
        """The folder with the Gaussians of a timestamp, which are trained first if need be."""
        if self.train is not None:
            self._train(scene, timestamp, self.train)
        return self.splats / timestamp

    def _train(self, scene: Scene, timestamp: str, config: TrainConfig) -> None:
        xyz, colors = self.calibration.points(timestamp)
        points = {timestamp: (self.frame_from_est.apply(xyz) if len(xyz) else xyz, colors)}
        calibrated = self.splats / "calibrated" / timestamp
        with whole_folder(calibrated) as folder:
            write_calibration(folder, self.calibration, points)
        with whole_folder(self.splats / timestamp) as folder:
            train_timestamp(scene, calibrated, timestamp, config, folder)


def rigs(
    scene: Scene, calibration: Calibration, splats: Path, config: PairsConfig, train: TrainConfig
) -> Iterator[Rig]:
    """The Gaussians of all source cameras, then those with each of `leave_out` left out.

    Poses and sparse points are always those that all source cameras gave.
    """
    work = work_root() / "pairs" / scene.name
    frame_from_est, given = Sim3.identity(), config.poses == "given"
    if given:
        frame_from_est = calibration.est_from_true.inverse()
        calibration = _true(scene, calibration)
        # True poses are no estimate that training may correct.
        train = train.model_copy(update={"pose_opt": False})
        splats = work / "given"
    every = list(calibration.targets)
    targets = chosen(config.cameras or every, every, "pairs.cameras", "target")
    kept = {name: calibration.targets[name] for name in targets}
    whole = replace(calibration, targets=kept)
    yield Rig(whole, splats, frame_from_est, train if given else None)
    sources = calibration.sources
    for name in chosen(config.leave_out, sources, "pairs.leave_out", "source"):
        others = {other: camera for other, camera in sources.items() if other != name}
        held = replace(calibration, sources=others, targets={name: sources[name]})
        yield Rig(held, work / f"without_{name}", frame_from_est, train, left_out=True)


def _true(scene: Scene, calibration: Calibration) -> Calibration:
    """True cameras in the true frame; on disk its points are still the estimated ones."""
    return replace(
        calibration,
        method="given",
        est_from_true=Sim3.identity(),
        sources=scene.cameras("source"),
        targets=scene.cameras("target"),
    )
