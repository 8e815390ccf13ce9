"""Stage `manifest`: samples of tuning and internal-eval scenes as one dataset, as DiFix has it."""

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import raise_all
from stages.run.files import write_json
from stages.run.plurals import counted
from stages.run.settings.params import Params
from stages.scenes.config import ManifestConfig
from stages.scenes.study.catalogue import groups
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.imported import import_groups


def main() -> None:
    """Write data/difix/dataset.json and metrics/manifest.json; refuse what leaks."""
    Arguments(description=__doc__).parse_args()

    from stages.samples.index import SamplePaths
    from stages.samples.manifest import build, collect, judge_catalogue, judge_dataset

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("manifest", ManifestConfig)
    paths = SamplePaths(layout.pairs, layout.pairs_metrics, layout.scene)
    collected = collect(study, paths)
    by_name = groups(params), import_groups(params)
    catalogue = judge_catalogue(study, collected, *by_name, params.where)
    raise_all([*catalogue.errors, *collected.errors])
    dataset = build(collected, config)
    verdict = judge_dataset(dataset, study, collected, layout.dataset())
    verdict.enforce()
    counts = {split: len(entries) for split, entries in dataset.items()}
    write_json(layout.dataset(), dataset)
    write_json(layout.manifest_metrics(), {**counts, "verdict": verdict.hash})
    for note in verdict.notes:
        print(f"note: {note}")
    listed = ", ".join(counted(count, f"{split} sample") for split, count in counts.items())
    print(f"{layout.dataset()}: {listed}; no leak, verdict {verdict.hash[:12]}")


if __name__ == "__main__":
    launch(main)
