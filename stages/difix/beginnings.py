"""What `base.source` and `tune.init_from` name, judged before anything is computed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from stages.difix.config import BaseConfig, TuneConfig
from stages.difix.taught import FILE, read_taught
from stages.run.errors import UserError
from stages.scenes.study import StudyConfig
from stages.scenes.subjects import named


def beginning_errors(
    base: BaseConfig,
    tune: TuneConfig,
    study: StudyConfig,
    groups: Mapping[str, str],
    where: Callable[[tuple[str | int, ...]], str],
) -> Iterator[UserError]:
    """Fixers in folders that learnt from scenes which are measured or reserved here."""
    scenes = (*study.internal_eval_scenes, *study.downstream_scenes, *study.reserved_scenes)
    measured = [named(scene, groups.get(scene, "")) for scene in dict.fromkeys(scenes)]
    places = {("base", "source"): base.source, ("tune", "init_from"): tune.init_from}
    for keys, source in places.items():
        folder = Path(source).expanduser()
        try:
            if source and (folder / FILE).is_file():
                read_taught(folder).refuse(where(keys), measured, "reserved or measured")
        except UserError as error:
            yield error
