"""Reconstructions that samples are rendered from: Gaussians and cameras in one frame.

They are those of stage `train`, or are trained here with its params: on true poses, without some of
the source cameras, or on renders of other Gaussians. Training here resumes after a kill; its
Gaussians are no stage's output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stages.run.artefacts import GAUSSIANS
from stages.run.errors import raise_all
from stages.run.files import text_hash, whole_folder, work_root
from stages.samples.planning import Way, select_cameras
from stages.scenes.cameras import moved_aside
from stages.scenes.config import PairsConfig, held_out_errors
from stages.scenes.frames import Sim3
from stages.scenes.images import png_writer
from stages.scenes.poses.calibration import Calibration, write_calibration
from stages.scenes.scene import Scene
from stages.scenes.view import View
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import Rendering, render
from stages.splat.training.timestamps import train_timestamp

_SURFACE = 0.5  # alpha of pixels whose depth counts


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Gaussians by timestamp under `splats`; `calibration.targets` are the cameras to render.

    `calibration.sources` are those whose images are references. With `train` the Gaussians are yet
    to be trained, on these.
    """

    calibration: Calibration
    splats: Path
    frame_from_est: Sim3  # of these cameras, from the frame of the calibration on disk
    train: TrainConfig | None = None
    way: Way = ""  # how they are trained
    _trained: set[str] = field(default_factory=set)  # timestamps that were trained here

    def ready(self, scene: Scene, timestamp: str) -> Path:
        """The folder with the Gaussians of a timestamp, which are trained first where necessary."""
        if self.train is not None and timestamp not in self._trained:
            self._train(scene, timestamp, self.train)
            self._trained.add(timestamp)
        return self.splats / timestamp

    def posed(self, scene: Scene, timestamp: str) -> Path:
        """The folder of the training that left the source cameras where their images fit best."""
        return self.ready(scene, timestamp)

    @property
    def fewer_cameras(self) -> tuple[str, ...]:
        """Source cameras that are trained on where some are left out, else none."""
        return tuple(self.calibration.sources) if self.way in ("cross", "sparse") else ()

    def _images(self, scene: Scene, timestamp: str) -> tuple[Scene, Calibration]:
        """What is trained on: images with the role source, and their cameras."""
        del timestamp
        return scene, self.calibration

    def _train(self, scene: Scene, timestamp: str, config: TrainConfig) -> None:
        scene, calibration = self._images(scene, timestamp)
        xyz, colors = self.calibration.points(timestamp)
        points = {timestamp: (self.frame_from_est.apply(xyz) if len(xyz) else xyz, colors)}
        calibrated = self.splats / "calibrated" / timestamp
        with whole_folder(calibrated) as folder:
            write_calibration(folder, calibration, points)
        with whole_folder(self.splats / timestamp) as folder:
            views = (view for view in scene.all_views if view.name in calibration.sources)
            own = replace(scene, name=resumed_as(scene.name), all_views=tuple(views))
            train_timestamp(own, calibrated, timestamp, config, folder)


@dataclass(frozen=True, eq=False, kw_only=True)
class Cycle(Reconstruction):
    """Gaussians that are trained on renders of the first ones, from cameras moved aside."""

    first: Reconstruction
    share: float  # of the distance to what a camera looks at
    backend: str

    def posed(self, scene: Scene, timestamp: str) -> Path:
        """The folder of the training that left the source cameras where their images fit best."""
        return self.first.ready(scene, timestamp)

    def _images(self, scene: Scene, timestamp: str) -> tuple[Scene, Calibration]:
        """Renders, one for each source camera; no pixel of an image is among them."""
        device = "cuda" if self.backend == "cuda" else "cpu"
        gaussians = Gaussians.load(self.first.ready(scene, timestamp) / GAUSSIANS, device)
        moved, views = {}, []
        root = self.splats / "renders"
        with whole_folder(root / "frames" / timestamp) as folder, png_writer() as write:
            (folder / "images").mkdir()
            for name, camera in self.calibration.sources.items():
                distance = _distance(render(gaussians, camera, self.backend))
                moved[name] = moved_aside(camera, distance, self.share)
                rendering = render(gaussians, moved[name], self.backend)
                write(folder / "images" / f"{name}.png", rendering.rgb.cpu().numpy())
                path = root / "frames" / timestamp / "images" / f"{name}.png"
                views.append(View(moved[name], path, timestamp=timestamp, role="source"))
        renders = Scene(root, scene.name, scene.group, tuple(views))
        return renders, replace(self.calibration, sources=moved, pose_covariance={})


def _distance(rendering: Rendering) -> float:
    """Median depth of the surfaces of a render, world units; 0 where it shows none."""
    depth = rendering.depth[rendering.alpha > _SURFACE]
    return float(depth.median()) if len(depth) else 0.0


def resumed_as(scene: str) -> str:
    """Item of stage `train` that has the resume states of the training here."""
    return f"{scene}.pairs"


def reconstructions(
    scene: Scene,
    calibration: Calibration,
    splats: Path,
    config: PairsConfig,
    train: TrainConfig,
    backend: str,
) -> Iterator[Reconstruction]:
    """The reconstruction from all source cameras, then the others that `config` asks for.

    These are one without each entry of `leave_out`, one from every n-th source camera, and one from
    renders. Poses and sparse points are always those estimated with all source cameras. Raises
    UserError when a source camera that is left out is unknown, or too few are left.

    Args:
        scene: the prepared scene, with true cameras.
        calibration: estimated cameras and points.
        splats: folder of the Gaussians of stage `train`, one folder per timestamp.
        config: which cameras, and on which poses.
        train: params of what is trained here.
        backend: of the rasteriser, for the renders that are trained on.
    """
    work = work_root() / "pairs" / scene.name
    frame_from_est, true_poses = Sim3.identity(), config.poses == "given"
    if true_poses:
        frame_from_est = calibration.est_from_true.inverse()
        calibration = _with_true_poses(scene, calibration)
        # True poses are no estimate that training may correct.
        train = train.model_copy(update={"pose_opt": False})
        splats = work / "given"
    sources, names = calibration.sources, list(calibration.targets)
    raise_all(
        held_out_errors(config, [*sources], scene.name, lambda keys: ".".join(map(str, keys)))
    )
    targets = select_cameras(config.cameras or names, names, "pairs.cameras", "target")
    kept = {name: calibration.targets[name] for name in targets}
    all_sources = replace(calibration, targets=kept)
    first = Reconstruction(all_sources, splats, frame_from_est, train if true_poses else None)
    yield first

    def without(group: Sequence[str], folder: Path, way: Way) -> Reconstruction:
        others = {name: camera for name, camera in sources.items() if name not in group}
        left_out = {name: sources[name] for name in group}
        held_out = replace(calibration, sources=others, targets=left_out)
        return Reconstruction(held_out, folder, frame_from_est, train, way)

    for group in _in_order(config.leave_out, [*sources]):
        yield without(group, work / f"without_{text_hash(*group)[:16]}", "cross")
    if config.degradation.sparse:
        every = [*sources][:: config.degradation.sparse]
        rest = [name for name in sources if name not in every]
        yield without(rest, work / "sparse", "sparse")
    if config.degradation.cycle:
        # The cameras of renders are exact.
        exact = train.model_copy(update={"pose_opt": False})
        yield Cycle(
            replace(calibration, targets=sources),
            work / "cycle",
            frame_from_est,
            exact,
            "cycle",
            first=first,
            share=config.degradation.cycle,
            backend=backend,
        )


def _in_order(groups: Sequence[Sequence[str]], names: list[str]) -> list[list[str]]:
    """Groups of cameras in the scene's order, and so the cameras of each.

    >>> _in_order([["c", "a"], ["b"]], ["a", "b", "c"])
    [['a', 'c'], ['b']]
    """
    ordered = (sorted(group, key=names.index) for group in groups)
    return sorted(ordered, key=lambda group: names.index(group[0]))


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
