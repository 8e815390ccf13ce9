"""What `base.source` and `tune.init_from` name, judged before anything is computed."""

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
    """Fixers in folders that learnt from scenes which are measured or reserved here.

    `values` are the valid sections of params; nothing is judged where one that counts is not.
    """
    if not {"study", "base", "tune"} <= values.keys():
        return
    study: StudyConfig = values["study"]
    scenes = (*study.internal_eval_scenes, *study.downstream_scenes, *study.reserved_scenes)
    measured = [named(scene, groups.get(scene, "")) for scene in dict.fromkeys(scenes)]
    places = {("base", "source"): values["base"].source}
    places["tune", "init_from"] = values["tune"].init_from
    for keys, source in places.items():
        folder = Path(source).expanduser()
        try:
            if source and (folder / FILE).is_file():
                read_training_record(folder).refuse(where(keys), measured, "reserved or measured")
        except UserError as error:
            yield error
