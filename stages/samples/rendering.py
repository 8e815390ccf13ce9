"""Tuning samples of a scene: renders of its Gaussians at cameras whose images are known.

A target's image is the ground truth of its render and never trained on; with
`pairs.poses: aligned` the render's pose is fitted to it.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from stages.quality.metrics.psnr import psnr
from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS
from stages.run.errors import UserError, raise_all
from stages.run.files import file_hash
from stages.run.progress import Progress
from stages.samples.index import KINDS, SampleIndex, SampleRecord, warped_kind
from stages.samples.leaks import foreign_references
from stages.samples.planning import (
    PlannedSample,
    config_for_split,
    plan_samples,
    subsample,
)
from stages.samples.reconstructions import Reconstruction, reconstructions
from stages.scenes.cameras import Camera
from stages.scenes.colmap import read_model
from stages.scenes.config import (
    FIXED_SOURCE,
    NEAREST,
    OVERLAP,
    PairsConfig,
    reference_errors,
)
from stages.scenes.images import (
    Pixels,
    image_size,
    png_writer,
    read_image,
    resize,
    resize_mask,
)
from stages.scenes.poses.calibration import Calibration, read_calibration
from stages.scenes.scene import Scene
from stages.scenes.view import View
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render
from stages.splat.views.references import ranked_references
from stages.splat.views.warping import Warper

EQUAL_DB = 99.0  # stands for the infinite PSNR of equal images, which JSON cannot hold


class SampleRenderer:
    """Renders one reconstruction at one timestamp; Gaussians, cameras and renders are cached."""

    def __init__(
        self,
        folder: Path,
        posed: Path,
        calibration: Calibration,
        config: PairsConfig,
        backend: str,
    ) -> None:
        """`posed` is the folder of the training that moved the source cameras."""
        self.folder, self.posed, self.calibration = folder, posed, calibration
        self.config, self.backend = config, backend
        self._gaussians: dict[int | None, Gaussians] = {}
        self._cameras: dict[str, Camera] = {}
        self._renders: dict[tuple[str, int | None], Pixels] = {}
        self._warpers: dict[int | None, Warper] = {}

    def render(self, view: View, step: int | None) -> Pixels:
        """The render [H, W, 3] of a view's camera after a step; None: after the last."""
        key = view.name, step
        if key not in self._renders:
            camera = self._camera(view)
            rendering = render(self._after(step), camera, self.backend)
            pixels, valid = rendering.rgb.cpu().numpy(), view.valid()
            # Black where pixels are invalid, as in the ground truth: no difference to learn from.
            self._renders[key] = pixels if valid is None else pixels * valid[..., None]
        return self._renders[key]

    def warped(self, view: View, others: Sequence[View], step: int | None) -> list[Pixels]:
        """Views warped into another one after a step, each [H, W, 4].

        Images of source cameras, at the poses that training left them; of target cameras renders.
        """
        if not others:
            return []
        if step not in self._warpers:
            self._warpers[step] = Warper(self._after(step), self.backend)
        cameras, images, valid = [], [], []
        for other in others:
            is_source = other.name in self.calibration.sources
            cameras.append(self._learnt[other.name] if is_source else self._camera(other))
            image, mask = other.image() if is_source else (self.render(other, step), None)
            size = cameras[-1].width, cameras[-1].height
            if is_source and image.shape[1::-1] != size:  # train.data_factor
                image, mask = (
                    resize(image, *size),
                    mask if mask is None else resize_mask(mask, *size),
                )
            images.append(image)
            valid.append(mask)
        return self._warpers[step](self._camera(view), cameras, images, valid)

    @cached_property
    def _learnt(self) -> dict[str, Camera]:
        """Source cameras as training left them, by name."""
        learnt = read_model(self.posed / LEARNT_CAMERAS).cameras
        return {Path(name).stem: camera for name, camera in learnt.items()}

    def _after(self, step: int | None) -> Gaussians:
        if step not in self._gaussians:
            suffix = "" if step is None else f"_{step}"
            device = "cuda" if self.backend == "cuda" else "cpu"
            path = self.folder / f"gaussians{suffix}.safetensors"
            self._gaussians[step] = Gaussians.load(path, device)
        return self._gaussians[step]

    def _camera(self, view: View) -> Camera:
        """The camera as calibrated, or aligned to the final Gaussians, whatever the step."""
        if view.name not in self._cameras:
            camera = self.calibration.targets[view.name]
            if self.config.poses == "aligned":
                image, valid = view.image()
                camera = align_camera(
                    self._after(None),
                    camera,
                    torch.from_numpy(image),
                    self.backend,
                    steps=self.config.align_steps,
                    lr=self.config.align_lr,
                    mask=None if valid is None else torch.from_numpy(valid),
                )
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
    policy: str = NEAREST,
) -> SampleIndex:
    """Write the samples of a scene into `folder`; return the content of pairs.json.

    Raises UserError when no sample is left, when the images of a sample have unequal sizes, when
    Gaussians or calibrations are missing, and for a reference that is no source camera's image.

    Args:
        scene: the prepared scene.
        calibrated: folder of its calibration.
        splats: folder of its trained Gaussians, one folder per timestamp.
        folder: where the samples go.
        config: params of stage `pairs`.
        train: params of stage `train`, for Gaussians that are trained here.
        split: train, or test for a scene that the tuning is only validated on.
        backend: of the rasteriser, see `choose_backend`.
        policy: of references, see `ranked_references`.
    """
    config = with_steps(config_for_split(config, split), train)
    raise_all(reference_errors(policy, config.reference.strategy))
    calibration = read_calibration(calibrated)
    planned = [
        (reconstruction, sample)
        for reconstruction in reconstructions(scene, calibration, splats, config, train, backend)
        for sample in _planned(scene, reconstruction, config, backend, policy)
    ]
    selected = subsample(planned, config.max_pairs, config.seed)
    if not selected:
        raise UserError(
            f"pairs of {scene.name}",
            "no target with a reference",
            expected=f"timestamps that lie {config.reference.offset_frames} apart; "
            f"the scene has {', '.join(scene.timestamps)}",
            fix="lower pairs.reference.offset_frames, or prepare more timestamps",
        )
    records = []
    with Progress(f"{scene.name}: pairs", len(selected)) as progress:
        for record in _rendered(scene, selected, folder, config, backend):
            records.append(record)
            progress.report(len(records))
    references = {record.name: record.path(folder, "ref_image") for record in records}
    renders = {sample.name for one, sample in selected if _is_render(one, sample)}
    raise_all(foreign_references(scene, references, renders))
    return SampleIndex(scene.name, scene.group, split, _image_hashes(scene), tuple(records))


def with_steps(config: PairsConfig, train: TrainConfig) -> PairsConfig:
    """`config` with its steps as training counted them. Raises UserError for one not saved."""
    if config.steps and train.warm_start:
        raise UserError(
            "pairs.steps",
            "train.warm_start leaves no timestamp half trained",
            fix="set pairs.steps: [], or train.warm_start: false",
        )
    missing = [step for step in config.steps if step not in train.save_steps]
    if missing:
        saved = ", ".join(map(str, train.save_steps)) or "no step"
        raise UserError(
            "pairs.steps",
            f"no Gaussians are kept of step {', '.join(map(str, missing))}",
            expected=f"steps of train.save_steps, which keeps {saved}",
            fix="add them to train.save_steps, then run `dvc repro pairs`",
        )
    return config.model_copy(update={"steps": tuple(map(train.scaled, config.steps))})


def _planned(
    scene: Scene,
    reconstruction: Reconstruction,
    config: PairsConfig,
    backend: str,
    policy: str,
) -> list[PlannedSample]:
    cameras = reconstruction.calibration
    named = policy.removeprefix(FIXED_SOURCE)
    if named != policy and named in scene.cameras("source") and named not in cameras.sources:
        policy = NEAREST  # the named one is left out

    def ranked(timestamp: str) -> dict[str, list[str]]:
        gaussians = None
        if policy == OVERLAP:
            device = "cuda" if backend == "cuda" else "cpu"
            trained = reconstruction.ready(scene, timestamp)
            gaussians = Gaussians.load(trained / GAUSSIANS, device)
        targets = list(cameras.targets)
        ranked = ranked_references(
            policy, list(cameras.targets.values()), cameras.sources, gaussians, backend
        )
        names = [[one if isinstance(one, str) else targets[one] for one in some] for some in ranked]
        return dict(zip(targets, names, strict=True))

    return plan_samples(
        scene.timestamps,
        cameras.targets,
        cameras.sources,
        config,
        reconstruction.way,
        ranked,
    )


def _rendered(
    scene: Scene,
    selected: Sequence[tuple[Reconstruction, PlannedSample]],
    folder: Path,
    config: PairsConfig,
    backend: str,
) -> Iterator[SampleRecord]:
    """Samples, written and then yielded by reconstruction and timestamp."""
    views = {(view.timestamp, view.name): view for view in scene.all_views}
    groups = itertools.groupby(selected, key=lambda pair: (id(pair[0]), pair[1].timestamp))
    for (_, timestamp), group in groups:
        samples = list(group)
        reconstruction = samples[0][0]
        trained = reconstruction.ready(scene, timestamp)
        posed = reconstruction.posed(scene, timestamp)
        renderer = SampleRenderer(trained, posed, reconstruction.calibration, config, backend)
        with png_writer() as write:
            for _, sample in samples:
                view = views[timestamp, sample.camera]
                reference = views[sample.ref_timestamp, sample.ref_camera]
                pixels = renderer.render(view, sample.step)
                before = None
                if _is_render(reconstruction, sample):
                    before = renderer.render(reference, sample.step)
                others = [views[timestamp, name] for name in sample.warped]
                warped = renderer.warped(view, others, sample.step)
                _write(write, folder, sample, pixels, view, reference, before, warped)
        for _, sample in samples:
            record = _record(folder, sample, config.poses, views[timestamp, sample.camera])
            yield replace(record, trained_on=reconstruction.fewer_cameras)


def _is_render(reconstruction: Reconstruction, sample: PlannedSample) -> bool:
    """Whether a sample's reference is the render of a nearer novel camera, by `previous`.

    At inference that view is fixed already, by the fixer that these samples are to tune. Here it is
    as the Gaussians give it, so that samples depend on no fixer and suit every one.
    """
    return sample.ref_camera not in reconstruction.calibration.sources


def _write(
    write: Callable[[Path, Pixels], None],
    folder: Path,
    sample: PlannedSample,
    pixels: Pixels,
    view: View,
    reference: View,
    before: Pixels | None,
    warped: Sequence[Pixels],
) -> None:
    """Write one sample; images are copied byte for byte, so that their hashes stay the same.

    `write` is that of a `png_writer`. `before` is the render at the reference's camera where that
    is the reference; `warped` are images [H, W, 4] of the cameras of `sample.warped`.
    """
    _check_sizes(sample, view, reference)
    paths = _paths(folder, sample)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    write(paths["image"], pixels)
    shutil.copyfile(view.image_path, paths["target_image"])
    if before is None:
        shutil.copyfile(reference.image_path, paths["ref_image"])
    else:
        write(paths["ref_image"], before)
    for number, image in enumerate(warped, 1):
        write(paths[warped_kind(number)], image)


def _paths(folder: Path, sample: PlannedSample) -> dict[str, Path]:
    """The files of a sample by kind."""
    kinds = (*KINDS, *(warped_kind(number) for number in range(1, len(sample.warped) + 1)))
    return {kind: folder / kind / f"{sample.name}.png" for kind in kinds}


def _record(folder: Path, sample: PlannedSample, poses: str, view: View) -> SampleRecord:
    """The record of a sample that is written, of a target view."""
    paths = _paths(folder, sample)
    error = psnr(_tensor(read_image(paths["image"])), _tensor(view.pixels())).item()
    return SampleRecord(
        name=sample.name,
        camera=sample.camera,
        timestamp=sample.timestamp,
        ref_camera=sample.ref_camera,
        ref_timestamp=sample.ref_timestamp,
        step=sample.step,
        left_out=sample.way in ("cross", "sparse"),
        poses=poses,
        psnr=round(min(error, EQUAL_DB), 4),
        files={kind: file_hash(path) for kind, path in paths.items()},
        warped=sample.warped,
        degradation=sample.way,
    )


def _check_sizes(sample: PlannedSample, view: View, reference: View) -> None:
    size, other = (view.camera.width, view.camera.height), image_size(reference.image_path)
    if size != other:
        raise UserError(
            f"pair {sample.name}",
            f"target {size[0]}x{size[1]} px, reference {other[0]}x{other[1]} px",
            expected="one size in a sample",
            fix="choose cameras of one size in `scenes:`, or in pairs.cameras",
        )


def _image_hashes(scene: Scene) -> dict[str, dict[str, str]]:
    """SHA-256 of every image of the scene, by role."""
    hashes: dict[str, dict[str, str]] = {"source": {}, "target": {}}
    for view in scene.all_views:
        hashes[view.role][f"{view.timestamp}/{view.name}"] = file_hash(view.image_path)
    return hashes


def _tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]
