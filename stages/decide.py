"""Stage `decide`: the decision snapshot, metrics/decision.md, from what `compare` found."""

import argparse

from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.files import read_json, read_tsv, whole_file
from stages.run.params import Params
from stages.scenes.study import StudyConfig


def main() -> None:
    """Write metrics/decision.md."""
    argparse.ArgumentParser(description=__doc__).parse_args()

    from stages.quality.decision import decision
    from stages.quality.deltas import NUMBERS

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("compare", CompareConfig)
    table = [
        {key: (float(cell) if cell else None) if key in NUMBERS else cell
         for key, cell in row.items()}
        for row in read_tsv(layout.delta_table())
    ]  # fmt: skip
    text = decision(
        study.version, study.objective, read_json(layout.summary()), read_json(layout.delta()),
        table, config.confidence,
    )  # fmt: skip
    with whole_file(layout.decision()) as scratch:
        scratch.write_text(text)
    print(text)


if __name__ == "__main__":
    launch(main)
