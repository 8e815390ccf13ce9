"""Reconstructions that samples are rendered from: Gaussians and cameras in one frame.

They are those of stage `train`, or are trained here with its params: on true poses, or without one
of the source cameras. Training here resumes after a kill; its Gaussians are no stage's output.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from stages.run.files import whole_folder, work_root
from stages.samples.planning import select_cameras
from stages.scenes.config import PairsConfig
from stages.scenes.frames import Sim3
from stages.scenes.poses.calibration import Calibration, write_calibration
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig
from stages.splat.training.timestamps import train_timestamp


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Gaussians by timestamp under `splats`; `calibration.targets` are the cameras to render.

    With `train` they are yet to be trained, on the sources of the calibration.
    """

    calibration: Calibration
    splats: Path
    frame_from_est: Sim3  # of these cameras, from the frame of the calibration on disk
    train: TrainConfig | None = None
    left_out: bool = False  # the target is a source camera that was not trained on
    _trained: set[str] = field(default_factory=set)  # timestamps that were trained here

    def ready(self, scene: Scene, timestamp: str) -> Path:
        """The folder with the Gaussians of a timestamp, which are trained first where necessary."""
        if self.train is not None and timestamp not in self._trained:
            self._train(scene, timestamp, self.train)
            self._trained.add(timestamp)
        return self.splats / timestamp

    def _train(self, scene: Scene, timestamp: str, config: TrainConfig) -> None:
        xyz, colors = self.calibration.points(timestamp)
        points = {timestamp: (self.frame_from_est.apply(xyz) if len(xyz) else xyz, colors)}
        calibrated = self.splats / "calibrated" / timestamp
        with whole_folder(calibrated) as folder:
            write_calibration(folder, self.calibration, points)
        with whole_folder(self.splats / timestamp) as folder:
            own = replace(scene, name=resumed_as(scene.name))
            train_timestamp(own, calibrated, timestamp, config, folder)


def resumed_as(scene: str) -> str:
    """Item of stage `train` that has the resume states of the training here."""
    return f"{scene}.pairs"


def reconstructions(
    scene: Scene, calibration: Calibration, splats: Path, config: PairsConfig, train: TrainConfig
) -> Iterator[Reconstruction]:
    """The reconstruction from all source cameras, then one without each of `leave_out`.

    Poses and sparse points are always those estimated with all source cameras.

    Args:
        scene: the prepared scene, with true cameras.
        calibration: estimated cameras and points.
        splats: folder of the Gaussians of stage `train`, one folder per timestamp.
        config: which cameras, and on which poses.
        train: params of what is trained here.
    """
    work = work_root() / "pairs" / scene.name
    frame_from_est, true_poses = Sim3.identity(), config.poses == "given"
    if true_poses:
        frame_from_est = calibration.est_from_true.inverse()
        calibration = _with_true_poses(scene, calibration)
        # True poses are no estimate that training may correct.
        train = train.model_copy(update={"pose_opt": False})
        splats = work / "given"
    names = list(calibration.targets)
    targets = select_cameras(config.cameras or names, names, "pairs.cameras", "target")
    kept = {name: calibration.targets[name] for name in targets}
    all_sources = replace(calibration, targets=kept)
    yield Reconstruction(all_sources, splats, frame_from_est, train if true_poses else None)
    sources = calibration.sources
    for name in select_cameras(config.leave_out, sources, "pairs.leave_out", "source"):
        others = {other: camera for other, camera in sources.items() if other != name}
        held_out = replace(calibration, sources=others, targets={name: sources[name]})
        folder = work / f"without_{name}"
        yield Reconstruction(held_out, folder, frame_from_est, train, left_out=True)


def _with_true_poses(scene: Scene, calibration: Calibration) -> Calibration:
    """True cameras in the true frame; its points on disk are still the estimated ones."""
    return replace(
        calibration,
        method="given",
        est_from_true=Sim3.identity(),
        sources=scene.cameras("source"),
        targets=scene.cameras("target"),
        pose_covariance={},
    )
