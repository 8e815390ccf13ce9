"""Stage `report`: the study on one page, whole and in brief, and as plots."""

from typing import TYPE_CHECKING

from stages.pages.config import ReportConfig
from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_file, whole_folder
from stages.run.provenance import recorded_costs
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig

if TYPE_CHECKING:
    from stages.pages.report.results import ResultFiles


def main() -> None:
    """Write the page, its brief form, the README's image and the data of `dvc plots show`."""
    Arguments(description=__doc__).parse_args()

    from stages.pages.report.both import both_pages
    from stages.pages.report.costs import study_costs
    from stages.pages.report.links import scene_links
    from stages.pages.report.page import require_size
    from stages.pages.report.plots import write_gains, write_strips
    from stages.pages.report.readme_image import write_readme_image
    from stages.pages.report.results import Results
    from stages.scenes.scene import Scene

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("report", ReportConfig)
    confidence = params.section("compare", CompareConfig).confidence
    results = Results.read(study, result_files())
    names = dict.fromkeys([*results.downstream, *results.evaluations.scenes])
    scenes = {name: Scene.read(layout.scene(name)) for name in names}
    others = [scene for scene in params.names("scenes") if scene not in study.scenes]
    costs = study_costs(recorded_costs(), others)
    links = scene_links({name: layout.shown(name) for name in names}, layout.report())
    text, brief = both_pages(results, scenes, layout.novel_views, links, costs, confidence, config)
    megabytes = require_size(text, layout.report(), config.max_mb)
    write_gains(layout.gains(), results)
    with whole_folder(layout.strips()) as folder:
        write_strips(folder, results, scenes, layout.novel_views, config)
    with whole_file(layout.readme_image()) as scratch:
        write_readme_image(scratch, results, scenes, layout.novel_views)
    for path, one in ((layout.report(), text), (layout.brief_report(), brief)):
        with whole_file(path) as scratch:
            scratch.write_text(one)
    print(f"{layout.report()}: {megabytes:.1f} MB, open it in any browser")


def result_files() -> "ResultFiles":
    """The files of all stages that the report shows."""
    from stages.pages.report.results import ResultFiles

    return ResultFiles(
        layout.evaluation,
        layout.summary(),
        layout.delta(),
        layout.delta_table(),
        layout.decision(),
        layout.train_metrics,
        layout.train_curves,
        layout.calibrate_metrics,
        layout.pairs_metrics,
        layout.manifest_metrics(),
        layout.tune_metrics(),
        layout.tune_curve,
        {kind: layout.METRICS / kind for kind in ("captures", "static")},
        layout.averaged()[0],
    )


if __name__ == "__main__":
    launch(main)
