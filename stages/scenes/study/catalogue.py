"""The whole catalogue of scenes; stages of one scene read its entry alone."""

from stages.run.settings.params import Params
from stages.scenes.config import SceneEntry
from stages.scenes.study.identity import group_of


def groups(params: Params) -> dict[str, str]:
    """Group of every scene in the catalogue, also of invalid entries."""
    entries = {
        name: params.check(("scenes", name), SceneEntry)[0] for name in params.names("scenes")
    }
    return {
        name: group_of(name, "" if entry is None else entry.group)
        for name, entry in entries.items()
    }
