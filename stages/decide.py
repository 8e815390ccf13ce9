"""Stage `decide`: the decision snapshot, metrics/decision.md, from the results of `compare`."""

from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import read_json, shaped, whole_file
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Write metrics/decision.md."""
    Arguments(description=__doc__).parse_args()

    from stages.quality.decision import decision

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("compare", CompareConfig)
    summary, delta = read_json(layout.summary()), read_json(layout.delta())
    with shaped(layout.delta(), "the files of stage compare", "run `dvc repro -f compare`"):
        text = decision(study.version, study.objective, summary, delta, config.confidence)
    with whole_file(layout.decision()) as scratch:
        scratch.write_text(text)
    print(text)


if __name__ == "__main__":
    launch(main)
