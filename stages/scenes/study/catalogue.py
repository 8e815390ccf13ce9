"""The whole catalogue of scenes; stages of one scene read its entry alone."""

from stages.run.settings.params import Params
from stages.scenes.config import SceneEntry
from stages.scenes.study.identity import group_of


def groups(params: Params) -> dict[str, str]:
    """Group of every scene in the catalogue, also of invalid entries."""
    return {
        name: group_of(name, "" if entry is None else entry.group)
        for name, entry in _entries(params).items()
    }


def sources(params: Params) -> dict[str, str]:
    """Source of every scene in the catalogue, such as demo; none of invalid entries."""
    return {name: entry.source for name, entry in _entries(params).items() if entry is not None}


def _entries(params: Params) -> dict[str, SceneEntry | None]:
    return {name: params.check(("scenes", name), SceneEntry)[0] for name in params.names("scenes")}
