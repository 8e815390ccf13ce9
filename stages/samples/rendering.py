"""Tuning samples of a scene: what its Gaussians show where a photograph is known.

A target's photograph is what its input is compared with and never what it is made of; with
`pairs.poses: aligned` it decides the pose that the input is rendered from.
"""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stages.quality.metrics.psnr import psnr
from stages.run.errors import UserError, raise_all
from stages.run.files import file_hash
from stages.run.progress import Progress
from stages.samples.index import KINDS, Sample, SampleIndex, SampleRecord, for_split, plan, thinned
from stages.samples.leaks import foreign_references
from stages.samples.reconstructions import Rig, rigs
from stages.scenes.cameras import Camera
from stages.scenes.config import PairsConfig
from stages.scenes.images import Pixels, image_size, read_image, write_png
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene, View
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render

EQUAL_DB = 99.0  # stands for the infinite PSNR of equal images, which JSON cannot hold


class SampleRenderer:
    """Pictures of one rig at one timestamp; Gaussians, cameras and pictures are made once."""

    def __init__(self, folder: Path, rig: Rig, config: PairsConfig, backend: str) -> None:
        self.folder, self.rig, self.config, self.backend = folder, rig, config, backend
        self._gaussians: dict[int | None, Gaussians] = {}
        self._cameras: dict[str, Camera] = {}
        self._pictures: dict[tuple[str, int | None], Pixels] = {}

    def picture(self, view: View, step: int | None) -> Pixels:
        """What the camera of a view sees, [H, W, 3], after a step; None: after the last."""
        key = view.name, step
        if key not in self._pictures:
            camera = self._camera(view)
            rendering = render(self._after(step), camera, self.backend)
            picture, seen = rendering.rgb.cpu().numpy(), view.seen()
            # Black on both sides, as the photograph is there, teaches a fixer nothing.
            self._pictures[key] = picture if seen is None else picture * seen[..., None]
        return self._pictures[key]

    def _after(self, step: int | None) -> Gaussians:
        if step not in self._gaussians:
            suffix = "" if step is None else f"_{step}"
            device = "cuda" if self.backend == "cuda" else "cpu"
            path = self.folder / f"gaussians{suffix}.safetensors"
            self._gaussians[step] = Gaussians.load(path, device)
        return self._gaussians[step]

    def _camera(self, view: View) -> Camera:
        """The camera as calibrated; aligned ones are fitted to what is final, for every step."""
        if view.name not in self._cameras:
            camera = self.rig.calibration.targets[view.name]
            if self.config.poses == "aligned":
                seen = view.seen()
                camera = align_camera(
                    self._after(None), camera, torch.from_numpy(view.image()), self.backend,
                    steps=self.config.align_steps, lr=self.config.align_lr,
                    mask=None if seen is None else torch.from_numpy(seen),
                )  # fmt: skip
            self._cameras[view.name] = camera
        return self._cameras[view.name]


def render_pairs(
    scene: Scene,
    calibrated: Path,
    splats: Path,
    folder: Path,
    config: PairsConfig,
    train: TrainConfig,
    split: str,
    backend: str,
) -> SampleIndex:
    """Write the samples of a scene into `folder`; return what pairs.json holds.

    `split` is train, or test for a scene that the tuning is only checked on. Raises UserError
    when no sample is left, when a triple has unequal sizes, when what samples are made of is
    missing, and for a reference that is no source camera's photograph.
    """
    config = with_steps(for_split(config, split), train)
    found = list(rigs(scene, read_calibration(calibrated), splats, config, train))
    planned = [(rig, sample) for rig in found for sample in _planned(scene, rig, config)]
    wanted = thinned(planned, config.max_pairs, config.seed)
    if not wanted:
        raise UserError(
            f"pairs of {scene.name}", "no target with a reference",
            expected=f"timestamps that lie {config.reference.offset_frames} apart; "
            f"the scene has {', '.join(scene.timestamps)}",
            fix="lower pairs.reference.offset_frames, or prepare more timestamps",
        )  # fmt: skip
    records = []
    with Progress(f"{scene.name}: pairs", len(wanted)) as progress:
        for record in _drawn(scene, wanted, folder, config, backend):
            records.append(record)
            progress.report(len(records))
    references = {one.name: folder / "ref_image" / f"{one.name}.png" for one in records}
    raise_all(foreign_references(scene, references))
    return SampleIndex(scene.name, scene.group, split, _photographs(scene), tuple(records))


def with_steps(config: PairsConfig, train: TrainConfig) -> PairsConfig:
    """`config` with its steps as training counted them. Raises UserError for one not kept."""
    if config.steps and train.warm_start:
        raise UserError(
            "pairs.steps", "train.warm_start leaves no timestamp half trained",
            fix="set pairs.steps: [], or train.warm_start: false",
        )  # fmt: skip
    lost = [step for step in config.steps if step not in train.save_steps]
    if lost:
        kept = ", ".join(map(str, train.save_steps)) or "no step"
        raise UserError(
            "pairs.steps", f"no Gaussians are kept of step {', '.join(map(str, lost))}",
            expected=f"steps of train.save_steps, which keeps {kept}",
            fix="add them to train.save_steps, then run `dvc repro pairs`",
        )  # fmt: skip
    return config.model_copy(update={"steps": tuple(map(train.scaled, config.steps))})


def _planned(scene: Scene, rig: Rig, config: PairsConfig) -> list[Sample]:
    frame = rig.calibration
    return plan(scene.timestamps, frame.targets, frame.sources, config, rig.left_out)


def _drawn(
    scene: Scene,
    wanted: Sequence[tuple[Rig, Sample]],
    folder: Path,
    config: PairsConfig,
    backend: str,
) -> Iterator[SampleRecord]:
    """Samples as they are written, those of one rig and timestamp together."""
    views = {(view.timestamp, view.name): view for view in scene.all_views}
    moments = itertools.groupby(wanted, key=lambda one: (id(one[0]), one[1].timestamp))
    for (_, timestamp), group in moments:
        samples = list(group)
        rig = samples[0][0]
        studio = SampleRenderer(rig.ready(scene, timestamp), rig, config, backend)
        for _, sample in samples:
            view = views[timestamp, sample.camera]
            reference = views[sample.ref_timestamp, sample.ref_camera]
            picture = studio.picture(view, sample.step)
            yield _written(folder, sample, config.poses, picture, view, reference)


def _written(
    folder: Path, sample: Sample, poses: str, picture: Pixels, view: View, reference: View
) -> SampleRecord:
    """Write one triple; photographs are copied byte for byte, so that hashes know them."""
    _check_sizes(sample, view, reference)
    paths = {kind: folder / kind / f"{sample.name}.png" for kind in KINDS}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_png(paths["image"], picture)
    shutil.copyfile(view.image_path, paths["target_image"])
    shutil.copyfile(reference.image_path, paths["ref_image"])
    error = psnr(_tensor(read_image(paths["image"])), _tensor(view.image())).item()
    return SampleRecord(
        name=sample.name,
        camera=sample.camera,
        timestamp=sample.timestamp,
        ref_camera=sample.ref_camera,
        ref_timestamp=sample.ref_timestamp,
        step=sample.step,
        left_out=sample.left_out,
        poses=poses,
        psnr=round(min(error, EQUAL_DB), 4),
        files={kind: file_hash(path) for kind, path in paths.items()},
    )


def _check_sizes(sample: Sample, view: View, reference: View) -> None:
    size, other = (view.camera.width, view.camera.height), image_size(reference.image_path)
    if size != other:
        raise UserError(
            f"pair {sample.name}",
            f"target {size[0]}x{size[1]} px, reference {other[0]}x{other[1]} px",
            expected="one size in a triple",
            fix="choose cameras of one size in `scenes:`, or in pairs.cameras",
        )


def _photographs(scene: Scene) -> dict[str, dict[str, str]]:
    """SHA-256 of every photograph of the scene, by role."""
    found: dict[str, dict[str, str]] = {"source": {}, "target": {}}
    for view in scene.all_views:
        found[view.role][f"{view.timestamp}/{view.name}"] = file_hash(view.image_path)
    return found


def _tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]
