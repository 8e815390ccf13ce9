"""Leaks that hashes of images show: one image in two roles, a reference that no user would have."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.samples.index import SampleIndex
from stages.scenes.scene import Scene
from stages.scenes.study.overlap import Subject, named


def image_digests(role: str, scene: Scene) -> Iterator[tuple[str, Path, str]]:
    """(role, path, SHA-256) of each image; source and target views have roles of their own."""
    for view in scene.views():
        yield f"{view.role} views of {role}", view.image_path, file_hash(view.image_path)


def shared_digests(images: Iterable[tuple[str, object, str]]) -> list[UserError]:
    """One error for each image, as (role, place, SHA-256), that an earlier role has too.

    Names do not count: a sequence that was copied under another scene's name shares its images.
    """
    owners: dict[str, tuple[str, object]] = {}
    errors = []
    for role, place, digest in images:
        owner, first = owners.setdefault(digest, (role, place))
        if owner != role:
            errors.append(
                UserError(
                    place,
                    f"the same image as {first}",
                    expected=f"no image in both {owner} and {role}",
                    fix="keep one of the two",
                )
            )
    return errors


def foreign_references(scene: Scene, references: Mapping[str, Path]) -> list[UserError]:
    """One error for each reference that is not an image of one of the scene's source cameras.

    `references` maps the name of a target view to its `ref_image`. Files are compared by content.
    The image of a target camera is refused even where a source camera's has the same bytes.
    """
    sources = {file_hash(view.image_path): view.name for view in scene.views("source")}
    targets = {file_hash(view.image_path): view.name for view in scene.views("target")}
    errors = []
    for name, path in references.items():
        digest = file_hash(path)
        if digest in sources and digest not in targets:
            continue
        camera = targets.get(digest)
        what = f"target camera {camera}'s image" if camera else "no image of the scene"
        errors.append(
            UserError(
                path,
                f"the reference of {name} is {what}",
                expected=f"a source camera's: {', '.join(sorted(set(sources.values())))}",
                fix=f"make the pairs of {scene.name} again",
            )
        )
    return errors


def scene_subject(name: str, folder: Path) -> Subject:
    """A scene with the hashes of its images; by its name alone where `folder` does not exist."""
    if not folder.is_dir():
        return named(name)
    scene = Scene.read(folder)
    digests = {file_hash(view.image_path) for view in scene.all_views}
    return Subject(name, scene.group, tuple(sorted(digests)))


def index_subject(index: SampleIndex) -> Subject:
    """A scene with the hashes that its index of samples has."""
    digests = {digest for images in index.photographs.values() for digest in images.values()}
    return Subject(index.scene, index.group, tuple(sorted(digests)))
