"""Stage `compare`: differences between methods over the downstream scenes, and the headline."""

from stages.difix.described import fixer_facts
from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json, write_tsv
from stages.run.methods import TUNED
from stages.run.settings.params import Params
from stages.scenes.study.catalogue import groups, sources
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.guard import judge
from stages.scenes.study.roles import NO_RESERVE


def main() -> None:
    """Write metrics/{headline,subject,summary,delta}.json, plots/{delta,frontier}.tsv beside."""
    Arguments(description=__doc__).parse_args()

    from stages.quality.averages import with_averages
    from stages.quality.comparison import Evaluations, downstream, plain_below_floor, summary
    from stages.quality.decision import headline_text
    from stages.quality.frontier import TABLE_COLUMNS, Frontiers, frontier_metrics
    from stages.quality.headline import Headline
    from stages.quality.measured import measured
    from stages.quality.noise import floor_words, noise_table, seed_noise
    from stages.quality.paired_differences import (
        COLUMNS,
        comparisons_of,
        delta_metrics,
        delta_table,
    )
    from stages.quality.table import comparison_text

    params = Params.read()
    study, config = params.section("study", StudyConfig), params.section("compare", CompareConfig)
    evaluations = Evaluations.read(study.evaluated_scenes, study.methods, layout.evaluation)
    scenes = downstream(study.downstream_scenes, study.evaluated_scenes)
    frontiers = Frontiers.read(evaluations, layout.frontier)
    chosen_on = [one for one in study.internal_eval_scenes if one in evaluations.scenes]
    strengths = frontiers.choose_strengths(chosen_on)
    averaged, repeats = evaluations, []
    if study.seeds:
        repeats = noise_table(evaluations, scenes, study.seeds, config, layout.evaluation)
        averaged = with_averages(evaluations, scenes, *layout.averaged())
    floor = seed_noise(repeats, config.confidence) if repeats else {}
    headline = Headline(study.subject, averaged, frontiers, scenes, strengths)
    means = summary(averaged, scenes)
    comparisons = comparisons_of(averaged.methods, study.subject)
    differences = delta_table(averaged, scenes, config, comparisons) + repeats
    verdict = judge(study, groups(params))
    fixer = fixer_facts(params, study.fixers, layout.fixed_views(scenes[0], TUNED))
    about = {
        "subject": study.subject,
        **frontiers.chosen(study.subject, chosen_on),
        "measured": measured(evaluations, scenes, sources(params), *fixer),
        "noise": floor_words(floor),
        "below_mean_color": ", ".join(plain_below_floor(evaluations, scenes)),
        "verdict": verdict.hash,
        "verdict_errors": len(verdict.errors),
    } | ({"note": NO_RESERVE} if NO_RESERVE in verdict.notes else {})
    deltas = {"study": about} | ({"noise_floor": floor} if floor else {})
    if strengths:
        verdicts = frontier_metrics(frontiers, scenes, config.confidence, floor)
        deltas["frontier"] = {"strengths": strengths} | verdicts
        deltas["headline"] = headline.differences(config, floor)
    write_json(layout.summary(), means)
    write_json(layout.headline(), headline.numbers())
    write_json(layout.subject(), headline.means())
    write_json(layout.delta(), deltas | delta_metrics(differences, scenes, floor))
    write_tsv(layout.delta_table(), differences, COLUMNS)
    write_tsv(layout.frontier_table(), frontiers.table(scenes), TABLE_COLUMNS)
    text = comparison_text(evaluations, means, differences, scenes, config.confidence)
    print(f"{text}\n\n{headline_text(deltas)}")


if __name__ == "__main__":
    launch(main)
