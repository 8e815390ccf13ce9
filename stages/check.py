"""Read params.yaml, judge the study and look at the raw data, before anything is computed."""

import argparse

from stages.quality.config import CompareConfig, EvaluateConfig, NovelViewsConfig, WeightsConfig
from stages.run.entry import launch
from stages.run.errors import raise_all
from stages.run.params import Params
from stages.scenes.config import CalibrateConfig, PrepareConfig, SceneEntry, group_in_name
from stages.scenes.demo.config import DemoConfig
from stages.scenes.guard import Verdict, judge
from stages.scenes.memo import memo
from stages.scenes.sources import source_errors
from stages.scenes.study import StudyConfig
from stages.splat.config import TrainConfig, inert

SECTIONS = {
    "study": StudyConfig,
    "demo": DemoConfig,
    "prepare": PrepareConfig,
    "calibrate": CalibrateConfig,
    "train": TrainConfig,
    "weights": WeightsConfig,
    "novel_views": NovelViewsConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
}
CATALOGUES = {"scenes": SceneEntry}


def main() -> None:
    """Print what the study is, or every fault of params.yaml and of the raw data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memo", action="store_true", help="print the study's memo as well")
    arguments = parser.parse_args()

    params = Params.read()
    values, errors = params.check_all(SECTIONS, CATALOGUES)
    verdict = None
    if {"study", "scenes"} <= values.keys():
        verdict = judge(values["study"], groups(params, values["scenes"]), params.where)
        errors += verdict.errors
    if {"study", "scenes", "demo"} <= values.keys():
        chosen = values["study"].scenes
        errors += source_errors(chosen, values["scenes"], values["demo"], params.where)
    raise_all(errors)
    assert verdict is not None, "neither an error nor a verdict"
    print(summary(values["study"], verdict))
    for key, reason in inert(values["train"]):
        print(f"note: {params.where(('train', *key.split('.')))} has no effect: {reason}")
    if arguments.memo:
        print(f"\n{memo(values['study'])}")


def groups(params: Params, entries: dict[str, SceneEntry]) -> dict[str, str]:
    """Group of every scene in the catalogue, also of those whose entry has a fault."""
    return {
        name: entries[name].group_of(name) if name in entries else group_in_name(name)
        for name in params.names("scenes")
    }


def summary(study: StudyConfig, verdict: Verdict) -> str:
    """Version, scenes by role, methods and the guard's verdict."""
    lines = [
        f"study {study.version}: {len(study.scenes)} scenes, "
        f"methods {', '.join(study.methods)}, headline {study.subject}"
    ]
    for role, scenes in verdict.groups_by_role:
        lines.append(f"  {role:21}{', '.join(scene for scene, _ in scenes) or 'none'}")
    lines += [f"guard: no leak between roles, verdict {verdict.hash[:12]}"]
    return "\n".join([*lines, *(f"note: {note}" for note in verdict.notes)])


if __name__ == "__main__":
    launch(main)
