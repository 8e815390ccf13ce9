"""Faults of samples in dataset.json: files that their split may not name, or that have changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.samples.index import (
    IMPORTED,
    INDEX_FILE,
    KINDS,
    SampleIndex,
    SamplePaths,
    SampleRecord,
    warped_paths,
)
from stages.scenes.images import image_size

_KEYS = {*KINDS, "prompt"}
_RESTORE = "run `dvc checkout`, or `dvc repro pairs manifest`"


@dataclass(frozen=True)
class SampleFile:
    """A file that stage `pairs` wrote."""

    kind: str
    scene: str
    digest: str


class SplitCheck:
    """Checks samples of one split against the indices of the scenes in its role."""

    def __init__(
        self,
        role: str,
        indices: Mapping[str, SampleIndex],
        roles: Mapping[str, str],
        paths: SamplePaths,
    ) -> None:
        """`indices` by scene; `roles` of all scenes of the study, for the messages."""
        self.role, self.scenes = role, list(indices)
        self._roles, self._paths = roles, paths
        self._files = {
            record.path(paths.samples(scene), kind).as_posix(): SampleFile(kind, scene, digest)
            for scene, index in indices.items()
            for record in index.pairs
            for kind, digest in record.files.items()
        }
        # Of each `image`, the warped images beside it by kind.
        self._warped = {
            record.path(paths.samples(scene), "image").as_posix(): {
                kind: record.path(paths.samples(scene), kind).as_posix()
                for kind in record.files
                if kind not in KINDS
            }
            for scene, index in indices.items()
            for record in index.pairs
        }

    def faults(self, place: str, entry: Any) -> Iterator[UserError]:
        """Every fault of one sample: of its keys, else of its paths, else of its images."""
        if not isinstance(entry, Mapping) or not {"image", "target_image"} <= set(entry) <= _KEYS:
            got = ", ".join(entry) if isinstance(entry, Mapping) else repr(entry)
            yield UserError(place, f"keys {got}", expected=", ".join((*KINDS, "prompt")))
            return
        named = {kind: entry[kind] for kind in KINDS if kind in entry}
        foreign = [(kind, path) for kind, path in named.items() if not self._may_name(kind, path)]
        for kind, path in foreign:
            yield UserError(
                f"{place}.{kind}",
                f"{path}: {self._reason(path)}",
                expected=f"{kind} of a pair in study.{self.role}: {', '.join(self.scenes) or '-'}",
                fix="take the sample out, or run `dvc repro manifest`",
            )
        if not foreign:
            warped = self._warped[entry["image"]]
            yield from self._image_faults(place, named | warped)
            yield from self._unknown_faults(place, entry["image"], warped)

    def digests(self, entry: Any) -> list[str]:
        """SHA-256 of a sample's files by kind, empty for a file that may not be named.

        Those of its warped images follow.
        """
        paths = [entry.get(kind) for kind in KINDS] if isinstance(entry, Mapping) else []
        image = paths[0] if paths and isinstance(paths[0], str) else ""
        paths += self._warped.get(image, {}).values()
        files = [self._files.get(path) if isinstance(path, str) else None for path in paths]
        return [file.digest if file else "" for file in files]

    def _may_name(self, kind: str, path: Any) -> bool:
        return isinstance(path, str) and path in self._files and self._files[path].kind == kind

    def _reason(self, path: Any) -> str:
        """Why a path may not be named here."""
        if not isinstance(path, str):
            return "no path"
        if path in self._files:
            return f"it is a {self._files[path].kind}"
        root, parts = self._paths.samples_root, PurePosixPath(path).parts
        if parts[:2] != root.parts or len(parts) != 5 or ".." in parts:
            return f"not a file of {root}/<scene>"
        scene = parts[2]
        if scene in self.scenes:
            return f"{self._paths.samples(scene) / INDEX_FILE} lists no such pair"
        role = self._roles.get(scene)
        return f"{scene} is in study.{role}" if role else f"{scene} has no role in the study"

    def _unknown_faults(
        self, place: str, image: str, warped: Mapping[str, str]
    ) -> Iterator[UserError]:
        """Warped images beside a sample that stage `pairs` did not write."""
        for path in warped_paths(Path(image)):
            if path.as_posix() not in warped.values():
                got = f"{path}: the index lists no such image"
                yield UserError(place, got, expected="files of stage `pairs`", fix="remove it")

    def _image_faults(self, place: str, named: Mapping[str, str]) -> Iterator[UserError]:
        if len({self._files[path].scene for path in named.values()}) > 1:
            got = f"images of several scenes: {', '.join(named.values())}"
            yield UserError(place, got, expected="one scene in a sample", fix="take it out")
        sizes = {}
        for kind, path in named.items():
            try:
                sizes[kind] = image_size(Path(path))
            except UserError as error:
                yield UserError(f"{place}.{kind}", f"{path}: {error.got}", fix=_RESTORE)
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{kind} {width}x{height}" for kind, (width, height) in sizes.items())
            yield UserError(place, got, expected="one size in a sample", fix=_RESTORE)
            return
        for kind in sizes:
            if file_hash(Path(named[kind])) != self._files[named[kind]].digest:
                got = f"{named[kind]} has changed since stage `pairs` wrote it"
                yield UserError(f"{place}.{kind}", got, fix=_RESTORE)


def index_faults(index: SampleIndex, folder: Path) -> Iterator[UserError]:
    """Samples in `folder` with a reference or a target that is no image of such a camera.

    A reference is an image of a source camera that the Gaussians were trained on, or a render at
    another camera, which is no image of the scene, and never the sample's own target. A target is
    a target camera's image, or in the train split that of a source camera which was left out, or,
    in a cycle, whose Gaussians were trained on renders, of any source camera. Gaussians are trained
    on no image of a target. Of imported samples, whose cameras are not known, a reference is any
    image but the target's.
    """
    where = folder / INDEX_FILE
    photographs = index.photographs
    sources, targets = (set(photographs[role].values()) for role in ("source", "target"))
    source_names = {name.partition("/")[2] for name in photographs["source"]}
    known = {name for images in photographs.values() for name in images}

    def fault(record: SampleRecord, got: str, expected: str) -> UserError:
        return UserError(f"{where}  {record.name}", got, expected=expected, fix=_RESTORE)

    for record in index.pairs:
        reference, target = record.files.get("ref_image"), record.files.get("target_image")
        if record.poses == IMPORTED:
            if reference == target or target not in targets:
                got = "ref_image is the target" if target in targets else "an unknown target_image"
                yield fault(record, got, "images of the import, another one as reference")
            continue
        rendered = f"{record.ref_timestamp}/{record.ref_camera}" in photographs["target"] or (
            bool(record.trained_on) and record.ref_camera not in record.trained_on
        )
        if reference in targets or (reference not in sources and not rendered):
            camera = f"camera {record.ref_camera} at {record.ref_timestamp}"
            yield fault(record, "ref_image is no source camera's image", camera)
        if reference == target:
            expected = "another camera's image"
            yield fault(record, "ref_image is the sample's own target_image", expected)
        for camera in record.warped:
            if camera == record.camera or f"{record.timestamp}/{camera}" not in known:
                got = f"camera {camera}'s image is warped into it"
                yield fault(record, got, f"other cameras of the scene at {record.timestamp}")
        of_source = index.split == "train" and (record.left_out or record.degradation == "cycle")
        if target not in (sources if of_source else targets):
            expected = "a source camera that was left out" if record.left_out else "a target camera"
            expected = "a source camera" if record.degradation == "cycle" else expected
            yield fault(record, f"target_image is not camera {record.camera}'s image", expected)
        for camera in record.trained_on:
            if camera == record.camera or camera not in source_names:
                got = f"its Gaussians were trained on camera {camera}"
                yield fault(record, got, "source cameras other than its target alone")
