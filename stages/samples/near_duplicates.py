"""Photographs in two roles that differ as files and yet are the same, see `likeness`."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.samples.faults import path_of
from stages.samples.index import SampleIndex
from stages.samples.similarity import Thumbnail, matches, thumbnails
from stages.scenes.scene import Scene

# Scene -> its photographs.
Pictures = Mapping[str, Sequence[Path]]


def near_duplicates(pictures_by_role: Mapping[str, Pictures]) -> list[UserError]:
    """One error for every two scenes in two roles that show one photograph.

    Raises UserError for a photograph that cannot be read.
    """
    paths = [
        path
        for pictures in pictures_by_role.values()
        for of_scene in pictures.values()
        for path in of_scene
    ]
    known = dict(zip(paths, thumbnails(paths), strict=True))
    errors = []
    for first, second in itertools.combinations(pictures_by_role, 2):
        pair = pictures_by_role[first], pictures_by_role[second]
        errors += _between(f"{first} and {second}", *pair, known)
    return errors


def prepared(scene: str) -> list[Path]:
    """Photographs of a scene; none if it is not prepared here."""
    folder = layout.scene(scene)
    return [view.image_path for view in Scene.read(folder).views()] if folder.is_dir() else []


def taught(index: SampleIndex) -> list[Path]:
    """Photographs in a scene's pairs, each once, and what else was taken of the scene."""
    paired = {
        one.files[kind]: Path(path_of(index.scene, kind, one))
        for one in index.pairs
        for kind in ("target_image", "ref_image")
        if kind in one.files
    }
    others = (path for path in prepared(index.scene) if file_hash(path) not in paired)
    return [*paired.values(), *others]


def _between(
    roles: str, first: Pictures, second: Pictures, known: Mapping[Path, Thumbnail]
) -> list[UserError]:
    ours = [(scene, path) for scene, paths in first.items() for path in paths]
    theirs = [(scene, path) for scene, paths in second.items() for path in paths]
    found: dict[tuple[str, str], list[tuple[Path, Path, float]]] = {}
    for match in matches([known[path] for _, path in ours], [known[path] for _, path in theirs]):
        (scene, path), (other, same) = ours[match.first], theirs[match.second]
        found.setdefault((scene, other), []).append((path, same, match.agreement))
    return [
        UserError(
            shown[0][0],
            f"the same photograph as {shown[0][1]} (they agree by {shown[0][2]:.2f}); "
            f"{len(shown)} of {scene} are {other}'s, encoded, cut or lit anew",
            expected=f"no photograph in both {roles}, whatever was done to it",
            fix=f"take {scene} or {other} out of its role, "
            "or say in `group:` that they show the same people",
        )
        for (scene, other), shown in found.items()
    ]
