"""Stage `report`: the study on one page, metrics/report/index.html."""

import argparse

from stages.pages.config import ReportConfig
from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import whole_file
from stages.run.provenance import recorded_costs
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Write the page, which needs no server and no network, and what `dvc plots show` draws."""
    argparse.ArgumentParser(description=__doc__).parse_args()

    from stages.pages.report.costs import stage_costs
    from stages.pages.report.links import shown_in_3d
    from stages.pages.report.page import page
    from stages.pages.report.plots import write_plots
    from stages.pages.report.results import Results
    from stages.pages.report.views import shown_views

    params = Params.read()
    study = params.section("study", StudyConfig)
    config = params.section("report", ReportConfig)
    confidence = params.section("compare", CompareConfig).confidence
    results = Results.read(study)
    # The scenes that answer the question come first.
    scenes = dict.fromkeys([*results.downstream, *results.evaluations.scenes])
    views = {scene: shown_views(results, scene, config) for scene in scenes}
    others = [scene for scene in params.names("scenes") if scene not in study.scenes]
    costs = stage_costs(recorded_costs(), others)
    shown = shown_in_3d(list(scenes))
    text = page(results, views, shown, costs, confidence, config.error_full_scale)
    megabytes = len(text.encode()) / 1e6
    if megabytes > config.max_mb:
        raise UserError(
            layout.report(), f"{megabytes:.1f} MB", expected=f"at most {config.max_mb:g} MB",
            fix="lower report.max_side_px or report.quality, or raise report.max_mb",
        )  # fmt: skip
    write_plots(results, list(scenes), config)
    with whole_file(layout.report()) as scratch:
        scratch.write_text(text)
    print(f"{layout.report()}: {megabytes:.1f} MB, open it in any browser")


if __name__ == "__main__":
    launch(main)
