"""What images give away: one photograph in two roles, a reference that a user would not have."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.scenes.scene import Scene


def shared_images(scenes_by_role: Mapping[str, Iterable[Scene]]) -> list[UserError]:
    """One error for each photograph whose bytes were met before in another role.

    Roles are those of the study, such as `tuning_scenes`, and within a scene source and target.
    Names do not count: a sequence that was copied under another scene's name is found.
    """
    return shared_contents(
        found
        for role, scenes in scenes_by_role.items()
        for scene in scenes
        for found in photographs(role, scene)
    )


def photographs(role: str, scene: Scene) -> Iterator[tuple[str, Path, str]]:
    """(role, path, SHA-256) of each photograph; source and target views have roles of their own."""
    for view in scene.views():
        yield f"{view.role} views of {role}", view.image_path, file_hash(view.image_path)


def shared_contents(found: Iterable[tuple[str, object, str]]) -> list[UserError]:
    """One error for each photograph, as (role, place, digest), met before in another role."""
    seen: dict[str, tuple[str, object]] = {}
    errors = []
    for role, place, digest in found:
        owner, first = seen.setdefault(digest, (role, place))
        if owner != role:
            errors.append(
                UserError(
                    place,
                    f"the same photograph as {first}",
                    expected=f"no photograph in both {owner} and {role}",
                    fix="keep one of the two",
                )
            )
    return errors


def foreign_references(scene: Scene, references: Mapping[str, Path]) -> list[UserError]:
    """One error for each reference that is no source camera's photograph of this scene.

    `references` maps the name of an evaluated view to its `ref_image`. Files are compared by
    content, so that copies count as what they show. A target camera's photograph is refused
    even where a source camera's has the same bytes.
    """
    sources = {file_hash(view.image_path): view.name for view in scene.views("source")}
    targets = {file_hash(view.image_path): view.name for view in scene.views("target")}
    errors = []
    for name, path in references.items():
        content = file_hash(path)
        if content in sources and content not in targets:
            continue
        camera = targets.get(content)
        shown = f"target camera {camera}'s photograph" if camera else "no photograph of the scene"
        errors.append(
            UserError(
                path,
                f"the reference of {name} is {shown}",
                expected=f"a source camera's: {', '.join(sorted(set(sources.values())))}",
                fix=f"make the pairs of {scene.name} again",
            )
        )
    return errors
