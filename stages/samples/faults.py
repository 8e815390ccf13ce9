"""The images of one split: which files it may name, and whether they still are what was made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.samples.index import KINDS, SampleIndex, SampleRecord
from stages.scenes.images import image_size

_KEYS = {*KINDS, "prompt"}
_AGAIN = "run `dvc checkout`, or `dvc repro pairs manifest`"


@dataclass(frozen=True)
class Made:
    """A file that stage `pairs` wrote."""

    kind: str
    scene: str
    digest: str


class Split:
    """Judges samples of one split against the pairs of the scenes in its role."""

    def __init__(
        self, role: str, indices: Mapping[str, SampleIndex], roles: Mapping[str, str]
    ) -> None:
        self.role, self.scenes = role, list(indices)
        self._roles = roles  # scene -> its role, for the messages
        self._made = {
            path_of(scene, kind, one): Made(kind, scene, digest)
            for scene, index in indices.items()
            for one in index.pairs
            for kind, digest in one.files.items()
        }

    def faults(self, place: str, entry: Any) -> Iterator[UserError]:
        """Every fault of one sample: of its keys, else of its paths, else of its images."""
        if not isinstance(entry, Mapping) or not {"image", "target_image"} <= set(entry) <= _KEYS:
            got = ", ".join(entry) if isinstance(entry, Mapping) else repr(entry)
            yield UserError(place, f"keys {got}", expected=", ".join((*KINDS, "prompt")))
            return
        named = {kind: entry[kind] for kind in KINDS if kind in entry}
        foreign = [(kind, path) for kind, path in named.items() if not self._fits(kind, path)]
        for kind, path in foreign:
            yield UserError(
                f"{place}.{kind}", f"{path}: {self._why(path)}",
                expected=f"{kind} of a pair in study.{self.role}: {', '.join(self.scenes) or '-'}",
                fix="take the sample out, or run `dvc repro manifest`",
            )  # fmt: skip
        if not foreign:
            yield from self._broken(place, named)

    def digests(self, entry: Any) -> list[str]:
        """SHA-256 of a sample's files by kind, empty where there is none that may be named."""
        paths = [entry.get(kind) for kind in KINDS] if isinstance(entry, Mapping) else []
        made = [self._made.get(path) if isinstance(path, str) else None for path in paths]
        return [one.digest if one else "" for one in made]

    def _fits(self, kind: str, path: Any) -> bool:
        return isinstance(path, str) and path in self._made and self._made[path].kind == kind

    def _why(self, path: Any) -> str:
        """Why a path may not be named here."""
        if not isinstance(path, str):
            return "no path"
        if path in self._made:
            return f"it is a {self._made[path].kind}"
        folder, parts = layout.pairs("x").parent, PurePosixPath(path).parts
        if parts[:2] != folder.parts or len(parts) != 5 or ".." in parts:
            return f"not a file of {folder}/<scene>"
        scene = parts[2]
        if scene in self.scenes:
            return f"{layout.pairs(scene) / 'pairs.json'} lists no such pair"
        role = self._roles.get(scene)
        return f"{scene} is in study.{role}" if role else f"{scene} has no role in the study"

    def _broken(self, place: str, named: Mapping[str, str]) -> Iterator[UserError]:
        if len({self._made[path].scene for path in named.values()}) > 1:
            got = f"images of several scenes: {', '.join(named.values())}"
            yield UserError(place, got, expected="one scene in a triple", fix="take it out")
        sizes = {}
        for kind, path in named.items():
            try:
                sizes[kind] = image_size(Path(path))
            except UserError as error:
                found = UserError(f"{place}.{kind}", f"{path}: {error.got}", fix=_AGAIN)
                yield found
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{kind} {width}x{height}" for kind, (width, height) in sizes.items())
            yield UserError(place, told, expected="one size in a triple", fix=_AGAIN)
            return
        for kind in sizes:
            if file_hash(Path(named[kind])) != self._made[named[kind]].digest:
                got = f"{named[kind]} has changed since it was made"
                yield UserError(f"{place}.{kind}", got, fix=_AGAIN)


def path_of(scene: str, kind: str, pair: SampleRecord) -> str:
    """A file of a pair, as `dataset.json` names it."""
    return (layout.pairs(scene) / kind / f"{pair.name}.png").as_posix()


def misused(index: SampleIndex) -> Iterator[UserError]:
    """Pairs whose reference is no source camera's photograph, or whose target is none at all.

    A target of the test split is always a target camera's.
    """
    where = layout.pairs(index.scene) / "pairs.json"
    sources = set(index.photographs["source"].values())
    targets = set(index.photographs["target"].values())
    for one in index.pairs:
        reference, target = one.files.get("ref_image"), one.files.get("target_image")
        if reference not in sources or reference in targets:
            yield UserError(
                f"{where}  {one.name}", "ref_image is no source camera's photograph",
                expected=f"camera {one.ref_camera} at {one.ref_timestamp}", fix=_AGAIN,
            )  # fmt: skip
        allowed = sources if one.left_out and index.split == "train" else targets
        if target not in allowed:
            yield UserError(
                f"{where}  {one.name}", f"target_image is not camera {one.camera}'s photograph",
                expected="a source camera that was left out" if one.left_out else "a target camera",
                fix=_AGAIN,
            )  # fmt: skip
