"""Check params.yaml, the study and the raw data, before anything is computed."""

from typing import Any

from stages.difix import config as difix
from stages.difix.weights.checkpoints import chosen_errors
from stages.difix.weights.training_leaks import training_leak_errors
from stages.jobs.config import SlurmConfig
from stages.pages import config as pages
from stages.quality import config as quality
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError, raise_all
from stages.run.settings.fan_out import collisions
from stages.run.settings.params import Params, add_override_option
from stages.samples.import_checks import import_errors, import_notes
from stages.scenes import config as scenes
from stages.scenes.captures import config as captures
from stages.scenes.demo import config as demo
from stages.scenes.sources.input_checks import input_errors
from stages.scenes.static.config import StaticConfig, StaticDemoConfig
from stages.scenes.study.catalogue import groups
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.guard import judge
from stages.scenes.study.imported import import_groups
from stages.scenes.study.memo import memo, summary
from stages.scenes.study.roles import Verdict
from stages.splat import config as splat
from stages.workspace.backbones import missing_notes

_PARTS = scenes, difix, quality, demo, captures, pages
SECTIONS = {
    "study": StudyConfig,
    "train": splat.TrainConfig,
    "distill": splat.DistillConfig,
    "static_demo": StaticDemoConfig,
    "static": StaticConfig,
    "slurm": SlurmConfig,
    **{name: model for part in _PARTS for name, model in part.SECTIONS.items()},
}
CATALOGUES = scenes.CATALOGUES | {"captures": captures.CaptureEntry}


def main() -> None:
    """Print a summary of the study, or every error in params.yaml and the raw data."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--memo", action="store_true", help="print the study's memo as well")
    add_override_option(parser)
    args = parser.parse_args()
    params = Params.read(overrides=args.overrides)
    values, verdict, errors = judged(params)
    if not errors:
        assert verdict is not None, "neither an error nor a verdict"
        print(summary(values["study"], verdict), *missing_notes(params.raw), sep="\nnote: ")
    if SECTIONS.keys() <= values.keys():
        for part in (splat.study_notes, difix.notes, import_notes):
            print("".join(f"{note}\n" for note in part(values, params.where)), end="")
    raise_all(errors)
    if args.memo:
        print(f"\n{memo(values['study'])}")


def judged(params: Params) -> tuple[dict[str, Any], Verdict | None, list[UserError]]:
    """The valid sections, the guard's verdict if the study is one, and every error."""
    (values, errors), where = params.check_all(SECTIONS, CATALOGUES), params.where
    imports = import_groups(params)
    is_whole = {"study", "scenes"} <= values.keys()
    verdict = judge(values["study"], groups(params), where, imports) if is_whole else None
    errors += verdict.errors if verdict else ()
    errors += training_leak_errors(values, groups(params) | imports, where)
    errors += [*input_errors(values, where, layout.raw), *chosen_errors(values, where)]
    errors += import_errors(values, layout.raw)
    errors += [*quality.net_errors(values, where), *difix.import_errors(values, where)]
    errors += captures.capture_errors(values, params.names, where, layout.raw, layout.eval_set)
    return values, verdict, [*errors, *collisions(params)]


if __name__ == "__main__":
    launch(main)
