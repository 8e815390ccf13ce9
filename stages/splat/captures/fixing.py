"""Evaluated views of a capture by the methods of a fixer, measured as the plain Gaussians were.

`post` fixes the stored renders of the evaluation. `distill` trains the Gaussians further on fixed
views on the way to the evaluated cameras and fixes their renders once more. Of an evaluated view
both get the camera, never the image; only the poses of `aligned` renders depend on it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from stages.quality.evaluation import MeasuredView, Measures, Meter, evaluate
from stages.quality.keys import MEASURED, further_in
from stages.run.artefacts import GAUSSIANS
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import target_of, write_json, write_tsv
from stages.run.methods import DISTILL, PLAIN, FormName, Method
from stages.run.process.stopping import Preemption
from stages.run.progress import Progress
from stages.scenes.cameras import Camera
from stages.scenes.config import PREVIOUS, ReferenceRule
from stages.scenes.images import Pixels, png_writer, stored
from stages.scenes.view import View
from stages.splat.captures.claims import record_fixed
from stages.splat.captures.evaluated import Evaluated
from stages.splat.captures.measuring import ALIGNED, GIVEN, aligned_camera
from stages.splat.captures.training_views import TrainingViews, capture_rule
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.render import render
from stages.splat.views.distill import distil
from stages.splat.views.references import Reference, fixing_rounds
from stages.splat.views.warping import Warper

STATE = "distill"  # stage of the resume states
_CHUNK = 16  # views in memory at once

Renders = dict[str, Pixels]  # of one view, [H, W, 3] by kind
Poses = dict[str, Camera]  # of its renders, by kind


class AppliedFixer(Protocol):
    """A fixer ready for inference."""

    name: str
    weights: str  # hash of its folder
    identity: str  # of the weights and of how they are run; states of another are not resumed
    rule: ReferenceRule  # of references

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of its results should know."""

    def fix(
        self, images: Sequence[Pixels], references: Sequence[Sequence[Pixels]], grids: int = 1
    ) -> list[Pixels]:
        """The fixed views of all images, each with its references, as the mean over `grids`."""

    def refuse_known(self, name: str, images: Iterable[str]) -> None:
        """Raise UserError when it was trained on a scene of this name or on images with a hash."""


@dataclass(frozen=True, eq=False)
class Fixing:
    """A fixer with all that its methods need beside the views."""

    fixer: AppliedFixer
    forms: tuple[FormName, ...]
    meter: Meter
    distill: DistillConfig
    train: TrainConfig

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know: of the fixer, and of its references."""
        asked, used = self.fixer.rule, capture_rule(self.fixer.rule)
        if asked == used:
            return [*self.fixer.notes]
        return [
            *self.fixer.notes,
            f"difix.reference_from: {asked.policy} names a camera of the study's scenes, and the "
            f"images here are no named cameras: references are by {used.policy} instead; nearest, "
            "overlap and previous act here too",
        ]

    @property
    def unread(self) -> dict[str, tuple[str, ...]]:
        """Sections of params.yaml that `distill` alone reads, where it is no method."""
        sections = ("distill", "train", "capture_train", "capture_evaluate")
        return {} if DISTILL in self.forms else dict.fromkeys(sections, ())

    def check(self, views: Evaluated, training: TrainingViews) -> None:
        """Raise UserError when the fixer knows the views, or other measures would not compare."""
        self.fixer.refuse_known(training.name, views.image_hashes | training.image_hashes)
        _check_protocol(views, views.protocol(self.meter))

    def write(
        self, folder: Path, views: Evaluated, training: TrainingViews, resume_as: str
    ) -> dict[str, Measures]:
        """Write a folder per form, and fixed.json; return the measures by method, plain first.

        All methods have the keys of the evaluation of the plain Gaussians.

        Args:
            folder: for the forms.
            views: the evaluated views.
            training: the views that were trained on.
            resume_as: name of the resume state of `distill`.

        Raises UserError when the fixer was trained on the views, and when its measures would not
        compare with the plain ones.
        """
        self.check(views, training)
        measures = {PLAIN: views.means}
        for form in self.forms:
            backend, _ = choose_backend(training.recipe(self.train).backend)
            device = "cuda" if backend == "cuda" else "cpu"
            poses = _Poses(views, training.plain.to(device), backend)
            source: _Stored | _Distilled = _Stored(poses)
            if form == DISTILL:
                source = self._distilled(poses, training, resume_as)
            method = str(Method(self.fixer.name, form))
            measures[method] = self._write(folder / form, source, views, training)
        rule = capture_rule(self.fixer.rule)
        instead = rule.policy if rule != self.fixer.rule else ""
        record_fixed(folder, views.image_hashes, self.fixer.weights, instead)
        return measures

    def _write(
        self,
        folder: Path,
        source: "_Stored | _Distilled",
        views: Evaluated,
        training: TrainingViews,
    ) -> Measures:
        """Write a method's renders, views.tsv and metrics.json; return the latter."""
        if isinstance(source, _Distilled):
            source.gaussians.to("cpu").save(folder / GAUSSIANS)
        fixes = isinstance(source, _Stored) or self.distill.post
        measured = self._measured(folder, source, fixes, views, training)
        rows, means = evaluate(
            measured,
            self.meter,
            training.record.mean_color,
            views.masks,
            name=str(target_of(folder)),
        )
        _check_protocol(views, means["protocol"])
        places = {view.name: index for index, view in enumerate(views.views)}
        rows = [{**row, "image": row["camera"]} for row in rows]
        rows.sort(key=lambda row: places[str(row["camera"])])
        write_tsv(folder / "views.tsv", rows, ["image", *MEASURED, *further_in(rows)])
        scalars = views.means | means
        write_json(folder / "metrics.json", scalars)
        return scalars

    def _measured(
        self,
        folder: Path,
        source: "_Stored | _Distilled",
        fixes: bool,
        views: Evaluated,
        training: TrainingViews,
    ) -> Iterator[MeasuredView]:
        """Render, fix, write and yield every view, a few at a time."""
        backend, rule = source.poses.backend, self.fixer.rule
        warper = Warper(source.poses.plain, backend) if rule.warped else None
        cameras = [views.cameras[view.name] for view in views.views]
        rounds, chosen, done = [[*range(len(cameras))]], [], 0
        if fixes and rule.policy == PREVIOUS:  # depends on all cameras
            chosen = training.references(cameras, rule, backend)
            rounds = fixing_rounds(chosen)
        of_index = [partial(source.poses.of, view) for view in views.views]
        later = {one for references in chosen for one in references}
        kept: dict[int, Renders] = {}  # fixed views that are references of others
        chunks = (r[start : start + _CHUNK] for r in rounds for start in range(0, len(r), _CHUNK))
        with (
            Progress(f"{views.name}: fixed views", len(cameras)) as progress,
            png_writer() as write,
        ):
            for chunk in chunks:
                renders = [source.renders(views.views[index]) for index in chunk]
                if fixes:
                    references = [chosen[index] for index in chunk] if chosen else None
                    if references is None:
                        some = [cameras[index] for index in chunk]
                        references = training.references(some, rule, backend)
                    beside = _Beside(training, kept, of_index, warper)
                    poses = [
                        source.poses.of(views.views[index]) if warper else {} for index in chunk
                    ]
                    renders = self._fixed(renders, poses, references, beside)
                for index, images in zip(chunk, renders, strict=True):
                    if index in later:
                        kept[index] = images
                    view = views.views[index]
                    for kind, image in images.items():
                        write(folder / views.folders[kind].name / views.files[view.name], image)
                    yield _as_measured(view, images, views)
                done += len(chunk)
                progress.report(done)

    def _fixed(
        self,
        renders: Sequence[Renders],
        poses: Sequence[Poses],
        references: Sequence[Sequence[Reference]],
        beside: "_Beside",
    ) -> list[Renders]:
        """All kinds of each view, fixed with its references; fixed ones are of the same kind."""
        kinds = [(index, kind) for index, images in enumerate(renders) for kind in images]
        fixed = self.fixer.fix(
            [renders[index][kind] for index, kind in kinds],
            [beside(kind, poses[index].get(kind), references[index]) for index, kind in kinds],
        )
        result: list[Renders] = [{} for _ in renders]
        for (index, kind), image in zip(kinds, fixed, strict=True):
            result[index][kind] = image
        return result

    def _distilled(self, poses: "_Poses", training: TrainingViews, resume_as: str) -> "_Distilled":
        """The Gaussians after the progressive update towards the evaluated cameras."""
        config, backend = training.recipe(self.train), poses.backend
        cameras = list(poses.views.cameras.values())
        timestamp = training.timestamp(config, poses.plain, self.fixer.rule)
        checkpoint = Checkpoint(
            STATE,
            resume_as,
            self.distill.recipe(),
            config.fingerprint(backend),
            training.identity(),
            timestamp.fingerprint(cameras),
            self.fixer.identity,
        )
        with Preemption() as preemption:
            gaussians = distil(
                timestamp,
                cameras,
                self.fixer.fix,
                self.distill,
                config,
                backend,
                checkpoint,
                preemption,
            )
        return _Distilled(poses, gaussians)


@dataclass(frozen=True, eq=False)
class _Poses:
    """The cameras of renders, which were fitted with the plain Gaussians where they are aligned."""

    views: Evaluated
    plain: Gaussians
    backend: str
    _known: dict[str, Poses] = field(default_factory=dict)

    def of(self, view: View) -> Poses:
        """The cameras of a view's renders."""
        if view.name not in self._known:
            camera, alignment = self.views.cameras[view.name], self.views.alignment
            cameras = {GIVEN: camera}
            if ALIGNED in self.views.folders and alignment is not None:
                image, valid = self.views.truth(view)
                cameras[ALIGNED] = aligned_camera(
                    self.plain, camera, image, valid, alignment, self.backend
                )
            self._known[view.name] = cameras
        return self._known[view.name]


@dataclass(frozen=True, eq=False)
class _Beside:
    """References of evaluated views as the fixer takes them: as they are, or warped."""

    training: TrainingViews
    before: Mapping[int, Renders]  # views that were fixed before, by index
    poses: Sequence[Callable[[], Poses]]  # of all views
    warper: Warper | None

    def __call__(
        self, kind: str, camera: Camera | None, references: Sequence[Reference]
    ) -> list[Pixels]:
        """The references of a render of some kind, from a camera that only a warp needs."""
        images = [
            self.training.image(one) if isinstance(one, str) else self.before[one][kind]
            for one in references
        ]
        if self.warper is None:
            return images
        assert camera is not None, "a warp needs the camera"
        sources = [
            self.training.cameras[one] if isinstance(one, str) else self.poses[one]()[kind]
            for one in references
        ]
        valid = [self.training.valid(one) if isinstance(one, str) else None for one in references]
        return self.warper(camera, sources, images, valid)


@dataclass(frozen=True, eq=False)
class _Stored:
    """The renders that the evaluation of the plain Gaussians stored."""

    poses: _Poses

    def renders(self, view: View) -> Renders:
        """The renders of a view."""
        return self.poses.views.renders(view)


@dataclass(frozen=True, eq=False)
class _Distilled:
    """Renders of distilled Gaussians at the poses of the evaluation of the plain ones."""

    poses: _Poses
    gaussians: Gaussians

    def renders(self, view: View) -> Renders:
        """The renders of a view."""
        return {
            kind: render(self.gaussians, camera, self.poses.backend).rgb.cpu().numpy()
            for kind, camera in self.poses.of(view).items()
        }


def _check_protocol(views: Evaluated, protocol: str) -> None:
    """Raise UserError unless the plain Gaussians were measured by this protocol."""
    if protocol == views.means["protocol"]:
        return
    raise UserError(
        next(iter(views.folders.values())),
        f"was measured as {views.means['protocol']!r}, not as {protocol!r}",
        expected="the same images, LPIPS weights and masks for all methods",
        fix="run what measured it (capture_train, capture_evaluate, static_evaluate) again",
    )


def _as_measured(view: View, images: Renders, views: Evaluated) -> MeasuredView:
    """A view's renders as they are measured, beside its ground truth."""
    measured = {kind: stored(image) if views.quantised else image for kind, image in images.items()}
    truth, valid = views.truth(view)
    return MeasuredView(
        "",
        view.name,
        truth,
        view.sha256,
        given=measured[GIVEN],
        aligned=measured.get(ALIGNED),
        mask=views.mask(view, valid),
        valid=valid,
    )
