"""The whole catalogue of imports; the stage of one import reads its entry alone."""

from stages.run.settings.params import Params
from stages.scenes.config import ImportEntry


def import_groups(params: Params) -> dict[str, str]:
    """Group of every import in the catalogue; of invalid entries their name."""
    entries = {n: params.check(("imports", n), ImportEntry)[0] for n in params.names("imports")}
    return {name: name if entry is None else entry.group for name, entry in entries.items()}
