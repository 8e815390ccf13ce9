"""Leaks that hashes of images show: one image in two roles, a reference that no user would have."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.samples.index import SampleIndex
from stages.scenes.images import read_image
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


def foreign_references(
    scene: Scene, references: Mapping[str, Path], renders: Collection[str] = ()
) -> list[UserError]:
    """One error for each reference that is not an image of one of the scene's source cameras.

    Files are compared by content. The image of a target camera is refused even where a source
    camera's has the same bytes.

    Args:
        scene: the prepared scene.
        references: the `ref_image` by name of its target view.
        renders: names of those whose reference is a render. Its pixels must not be those of a
            target camera's image, in whatever file.
    """
    sources = {file_hash(view.image_path): view.name for view in scene.views("source")}
    targets = {file_hash(view.image_path): view.name for view in scene.views("target")}
    pixels = {_pixel_hash(view.image_path): view.name for view in scene.views("target") if renders}
    errors = []
    for name, path in references.items():
        digest = file_hash(path)
        is_source = digest in sources and digest not in targets
        camera = targets.get(digest)
        if name in renders:
            camera = pixels.get(_pixel_hash(path))
            is_source = is_source or camera is None
        if is_source:
            continue
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


def _pixel_hash(path: Path) -> str:
    """SHA-256 of an image's decoded pixels."""
    pixels = read_image(path)
    return sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


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
