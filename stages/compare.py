"""Stage `compare`: differences between methods over the downstream scenes, and the headline."""

import argparse

from stages.difix.described import fixer_facts
from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.files import write_json, write_tsv
from stages.run.methods import TUNED, methods_of
from stages.run.settings.params import Params
from stages.scenes.study.catalogue import groups, sources
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.guard import judge
from stages.scenes.study.roles import NO_RESERVE


def main() -> None:
    """Write metrics/{summary,headline,delta}.json and metrics/plots/{delta,frontier}.tsv."""
    argparse.ArgumentParser(description=__doc__).parse_args()

    from stages.quality.averages import compared_with_average, with_averages
    from stages.quality.comparison import (
        Evaluations,
        choose,
        downstream,
        headline,
        plain_below_floor,
        summary,
    )
    from stages.quality.frontier import TABLE_COLUMNS, Frontiers, frontier_metrics
    from stages.quality.keys import NONE_MEAN
    from stages.quality.measured import measured
    from stages.quality.noise import NOT_MEASURED, noise_lines, noise_table, seed_noise
    from stages.quality.paired_differences import COLUMNS, delta_metrics, delta_table
    from stages.quality.table import comparison_text

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("compare", CompareConfig)
    evaluations = Evaluations.read(study.evaluated_scenes, study.methods, layout.evaluation)
    scenes = downstream(study.downstream_scenes, study.evaluated_scenes)
    means = summary(evaluations, scenes)
    differences = delta_table(evaluations, scenes, config)
    frontiers = Frontiers.read(evaluations, layout.frontier)
    # The downstream scenes have no part in these choices.
    strengths = frontiers.choose_strengths(study.internal_eval_scenes)
    at_strength = frontiers.at(scenes, study.subject, strengths)
    subject_means = headline(evaluations, scenes, study.subject, at_strength)
    chosen = choose(evaluations, study.internal_eval_scenes, methods_of(TUNED, study.methods))
    verdict = judge(study, groups(params))
    fixer = fixer_facts(params, study.fixers, layout.tune_metrics())
    facts = measured(evaluations, scenes, sources(params), *fixer)
    deltas = {"study": {"chosen": chosen, "verdict": verdict.hash, "measured": facts}}
    deltas["study"] |= {"note": NO_RESERVE} if NO_RESERVE in verdict.notes else {}
    deltas["study"] |= {} if study.seeds else {"noise": NOT_MEASURED}
    if below := plain_below_floor(evaluations, scenes):
        deltas["study"]["below_mean_color"] = ", ".join(below)
    if study.seeds:
        repeats = noise_table(evaluations, scenes, study.seeds, config, layout.evaluation)
        deltas["noise_floor"] = seed_noise(repeats, config.confidence)
        averaged = with_averages(evaluations, scenes, *layout.averaged())
        means[NONE_MEAN] = summary(averaged, scenes)[NONE_MEAN]
        differences += delta_table(averaged, scenes, config, compared_with_average(chosen))
        differences += repeats
    floor = deltas.get("noise_floor", {})
    if strengths:
        verdicts = frontier_metrics(frontiers, scenes, config.confidence, floor)
        deltas["frontier"] = {"subject": study.subject, "strengths": strengths} | verdicts
    write_json(layout.summary(), means)
    write_json(layout.headline(), subject_means)
    write_json(layout.delta(), deltas | delta_metrics(differences, scenes))
    write_tsv(layout.delta_table(), differences, COLUMNS)
    write_tsv(layout.frontier_table(), frontiers.table(scenes), TABLE_COLUMNS)
    text = comparison_text(evaluations, means, differences, scenes, config.confidence)
    print(text, "", *noise_lines(floor, config.confidence), sep="\n")


if __name__ == "__main__":
    launch(main)
