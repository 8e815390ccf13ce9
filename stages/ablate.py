"""Vary some params in DVC experiments and compare every arm with the default, noise included."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.quality.config import CompareConfig
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.params import Params
from stages.scenes.study import StudyConfig

if TYPE_CHECKING:
    from stages.workspace.arms import Arm


def main() -> None:
    """Run every arm that is not done yet, then print the table of all that are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("factors", nargs="+", metavar="KEY=A,B", help="a param and values to try")
    parser.add_argument("--singly", action="store_true", help="one factor at a time, no products")
    parser.add_argument("--repeats", type=int, default=1, help="runs with other seeds; default 1")
    parser.add_argument("--method", help="the method to compare; default study.subject")
    parser.add_argument("--collect", action="store_true", help="print the table, run nothing")
    parser.add_argument("--queue", action="store_true", help="fill DVC's queue, run nothing here")
    given = parser.parse_args()

    from stages.workspace import ablate, repository
    from stages.workspace.arms import arms, parse, repeats

    params = Params.read()
    study = params.section("study", StudyConfig)
    factors = [parse(text, params) for text in given.factors]
    varied = arms(factors, params, singly=given.singly)
    repeated = repeats(factors, params, given.repeats)
    ablate.require_default(repository.steps())
    failed: list[Arm] = []
    if not given.collect:
        failed = ablate.run_arms([*varied, *repeated], queue=given.queue)
    if given.queue and not given.collect:
        print("next: dvc queue start -j 2, then the same command with --collect")
        return
    with ablate.scratch() as folder:
        found = ablate.collect([*varied, *repeated], Path(folder))
        config = params.section("compare", CompareConfig)
        _print(study, config, given.method or study.subject, varied, repeated, found)
    absent = [arm.label for arm in (*varied, *repeated) if arm.label not in found]
    if absent or failed:
        raise UserError(
            f"{len(absent)} of {len(varied) + len(repeated)} arms have no result",
            "; ".join(absent), fix="look at .work/ablate/*.log and run the same command again",
        )  # fmt: skip


def _print(
    study: StudyConfig, config: CompareConfig, method: str, varied: "Sequence[Arm]",
    repeated: "Sequence[Arm]", found: dict[str, Path],
) -> None:  # fmt: skip
    from stages.quality.ablation import ablation_table, compared, means_of
    from stages.quality.comparison import Evaluations

    default = Evaluations.read(study.evaluated_scenes, (method,))
    read = {label: Evaluations.read(study.evaluated_scenes, (method,), folder)
            for label, folder in found.items()}  # fmt: skip
    roles = {"to choose by": study.internal_eval_scenes, "to report": study.downstream_scenes}
    for purpose, listed in roles.items():
        scenes = [scene for scene in listed if scene in study.evaluated_scenes]
        if not scenes:
            continue
        rows, reasons = compared(default, read, scenes, method, config)
        labels = [[arm.label for arm in some if arm.label in found] for some in (varied, repeated)]
        print(f"\n{method} on scenes {purpose}: {', '.join(scenes)}")
        means = means_of(default, scenes, method)
        print(ablation_table(rows, means, *labels, reasons, len(scenes)))
    print(f"\n* larger than what another seed does; brackets: {config.confidence:.0%} of Student's")


if __name__ == "__main__":
    launch(main)
