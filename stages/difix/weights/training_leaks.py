"""Whether a fixer was trained on scenes that it is measured on, or that are reserved."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.difix.network.training_record import FILE, read_training_record
from stages.run.errors import UserError
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.overlap import named


def training_leak_errors(
    values: Mapping[str, Any],
    groups: Mapping[str, str],
    where: Callable[[tuple[str | int, ...]], str],
) -> Iterator[UserError]:
    """Folders in `base.source` and `tune.init_from` trained on measured or reserved scenes.

    Args:
        values: the valid sections of params; nothing is checked where study, base or tune is not.
        groups: by scene and import.
        where: the line of a key in params.yaml.
    """
    if not {"study", "base", "tune"} <= values.keys():
        return
    study: StudyConfig = values["study"]
    scenes = (*study.internal_eval_scenes, *study.internal_eval_imports)
    scenes += (*study.downstream_scenes, *study.reserved_scenes)
    measured = [named(scene, groups.get(scene, "")) for scene in dict.fromkeys(scenes)]
    sources = {("base", "source"): values["base"].source}
    sources["tune", "init_from"] = values["tune"].init_from
    for keys, source in sources.items():
        folder = Path(source).expanduser()
        try:
            if source and (folder / FILE).is_file():
                record = read_training_record(folder)
                record.refuse_overlap(where(keys), measured, "reserved or measured")
        except UserError as error:
            yield error
