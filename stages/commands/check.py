"""Check params.yaml, the study and the raw data, before anything is computed."""

import argparse

from stages.difix import config as difix
from stages.difix.weights.checkpoints import chosen_errors
from stages.difix.weights.training_leaks import training_leak_errors
from stages.jobs.config import SlurmConfig
from stages.pages import config as pages
from stages.quality import config as quality
from stages.run import layout
from stages.run.entry import launch
from stages.run.errors import raise_all
from stages.run.settings.fan_out import collisions
from stages.run.settings.params import Params
from stages.scenes import config as scenes
from stages.scenes.captures import config as captures
from stages.scenes.demo import config as demo
from stages.scenes.sources.input_checks import input_errors
from stages.scenes.static.config import StaticConfig, StaticDemoConfig
from stages.scenes.study.catalogue import groups
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.guard import judge
from stages.scenes.study.memo import memo, summary
from stages.splat import config as splat

SECTIONS = {
    "study": StudyConfig,
    "prepare": scenes.PrepareConfig,
    "calibrate": scenes.CalibrateConfig,
    "train": splat.TrainConfig,
    "pairs": scenes.PairsConfig,
    "manifest": scenes.ManifestConfig,
    "difix": difix.FixerConfig,
    "base": difix.BaseConfig,
    "tune": difix.TuneConfig,
    "weights": quality.WeightsConfig,
    "novel_views": quality.NovelViewsConfig,
    "distill": splat.DistillConfig,
    "evaluate": quality.EvaluateConfig,
    "compare": quality.CompareConfig,
    "report": pages.ReportConfig,
    "show": pages.ShowConfig,
    "vggt": scenes.VggtConfig,
    "static_demo": StaticDemoConfig,
    "static": StaticConfig,
    "slurm": SlurmConfig,
    **(demo.SECTIONS | captures.SECTIONS),
}
CATALOGUES = {"scenes": scenes.SceneEntry, "captures": captures.CaptureEntry}


def main() -> None:
    """Print a summary of the study, or every error in params.yaml and the raw data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memo", action="store_true", help="print the study's memo as well")
    args = parser.parse_args()
    params = Params.read()
    values, errors = params.check_all(SECTIONS, CATALOGUES)
    is_whole = {"study", "scenes"} <= values.keys()
    verdict = judge(values["study"], groups(params), params.where) if is_whole else None
    errors += verdict.errors if verdict else []
    errors += training_leak_errors(values, groups(params), params.where)
    errors += input_errors(values, params.where, layout.raw)
    errors += [*chosen_errors(values, params.where), *quality.net_errors(values, params.where)]
    errors += captures.capture_errors(values, params.where, layout.raw, layout.eval_set)
    raise_all([*errors, *collisions(params)])
    assert verdict is not None, "neither an error nor a verdict"
    print(summary(values["study"], verdict))
    others = values["capture_study"].captures, values["static"].scenes, values["prepare"].masks
    inert = [("train", *one) for one in splat.inert_in(values["train"], *others)]
    inert += [("tune", "", *one) for one in difix.inert_keys(values["tune"])]
    for section, place, key, reason in inert:
        print(f"note: {params.where((section, *key.split('.')))} has no effect{place}: {reason}")
    if args.memo:
        print(f"\n{memo(values['study'])}")


if __name__ == "__main__":
    launch(main)
