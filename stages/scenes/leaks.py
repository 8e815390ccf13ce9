"""What images give away: one photograph in two roles, a reference that a user would not have."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.scenes.scene import Scene, View


def shared_images(scenes_by_role: Mapping[str, Iterable[Scene]]) -> list[UserError]:
    """One error for each photograph whose bytes were met before in another role.

    Roles are those of the study, such as `tuning_scenes`, and within a scene source and target.
    Names do not count: a sequence that was copied under another scene's name is found.
    """
    seen: dict[str, tuple[str, View]] = {}
    errors = []
    for role, view in _views_by_role(scenes_by_role):
        owner, first = seen.setdefault(file_hash(view.image_path), (role, view))
        if owner != role:
            errors.append(
                UserError(
                    view.image_path,
                    f"the same photograph as {first.image_path}",
                    expected=f"no photograph in both {owner} and {role}",
                    fix="keep one of the two",
                )
            )
    return errors


def _views_by_role(scenes_by_role: Mapping[str, Iterable[Scene]]) -> Iterator[tuple[str, View]]:
    for role, scenes in scenes_by_role.items():
        for scene in scenes:
            for view in scene.views():
                yield f"{view.role} views of {role}", view


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
