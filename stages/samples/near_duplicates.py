"""Images in two roles that are one image although their files differ, see `similarity`."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.samples.index import KINDS, SampleIndex, is_imported
from stages.samples.similarity import Thumbnail, matches, thumbnails
from stages.scenes.scene import Scene

SceneImages = Mapping[str, Sequence[Path]]  # by scene


def near_duplicates(images_by_role: Mapping[str, SceneImages]) -> list[UserError]:
    """One error for every two scenes in two roles that share an image.

    Raises UserError for an image that cannot be read.
    """
    paths = [
        path
        for images in images_by_role.values()
        for of_scene in images.values()
        for path in of_scene
    ]
    known = dict(zip(paths, thumbnails(paths), strict=True))
    errors = []
    for first, second in itertools.combinations(images_by_role, 2):
        pair = images_by_role[first], images_by_role[second]
        errors += _between(f"{first} and {second}", *pair, known)
    return errors


def scene_images(folder: Path) -> list[Path]:
    """All images of a prepared scene; none where `folder` does not exist."""
    return [view.image_path for view in Scene.read(folder).views()] if folder.is_dir() else []


def sample_images(index: SampleIndex, samples: Path, scene: Path) -> list[Path]:
    """Targets and references in a scene's samples, each once, and all other images of the scene.

    Of an import also the inputs, which may be no renders. `samples` and `scene` are the folders of
    the samples and of the prepared scene.
    """
    kinds = KINDS if is_imported(index) else ("target_image", "ref_image")
    paired = {
        record.files[kind]: record.path(samples, kind)
        for record in index.pairs
        for kind in kinds
        if kind in record.files
    }
    others = (path for path in scene_images(scene) if file_hash(path) not in paired)
    return [*paired.values(), *others]


def _between(
    roles: str, first: SceneImages, second: SceneImages, known: Mapping[Path, Thumbnail]
) -> list[UserError]:
    ours = [(scene, path) for scene, paths in first.items() for path in paths]
    theirs = [(scene, path) for scene, paths in second.items() for path in paths]
    shared: dict[tuple[str, str], list[tuple[Path, Path, float]]] = {}
    for match in matches([known[path] for _, path in ours], [known[path] for _, path in theirs]):
        (scene, path), (other, same) = ours[match.first], theirs[match.second]
        shared.setdefault((scene, other), []).append((path, same, match.agreement))
    return [
        UserError(
            examples[0][0],
            f"the same image as {examples[0][1]} (they agree by {examples[0][2]:.2f}); "
            f"{len(examples)} of {scene} are {other}'s, encoded, cropped or lit anew",
            expected=f"no image in both {roles}, whatever was done to it",
            fix=f"take {scene} or {other} out of its role, "
            "or say in `group:` that they show the same people",
        )
        for (scene, other), examples in shared.items()
    ]
