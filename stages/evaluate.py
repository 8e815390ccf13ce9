"""Stage `evaluate`: PSNR, SSIM and LPIPS of a scene's novel views by every method."""

import sys

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json, write_tsv
from stages.run.methods import FIXERS, PLAIN, methods_of
from stages.run.notes import unshown
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Write metrics/scenes/<scene>/<method>.json, and metrics/{views,frontier}/.../<method>.tsv."""
    parser = Arguments(description=__doc__)
    parser.add_argument(
        "--scene", type=name_argument, required=True, help="a scene with novel views"
    )
    scene = parser.parse_args().scene

    from stages.difix.network.training_record import read_training_record
    from stages.difix.weights.evaluation_notes import evaluation_notes
    from stages.quality.blends import COLUMNS as STRENGTH_COLUMNS
    from stages.quality.blends import measure_strengths
    from stages.quality.evaluation import Meter, columns_of, evaluate, mean_color, summary
    from stages.scenes.novel_views import read_kinds
    from stages.scenes.scene import Scene
    from stages.splat.views.measured_views import measured_views

    params = Params.read()
    config, study = params.section("evaluate", EvaluateConfig), params.section("study", StudyConfig)
    prepared = Scene.read(layout.scene(scene))
    prepared.cameras("target")  # refuses a scene without any
    for fixer in FIXERS:
        if methods_of(fixer, study.methods):
            pictures = layout.fixed_views(scene, fixer)
            record, folder = read_training_record(pictures), layout.scene(scene)
            for note in evaluation_notes(pictures, record, scene, folder, study.tuning_scenes):
                print(f"note: {fixer}: {note}")
    meter = Meter.build(config, layout.WEIGHTS)
    color = mean_color(view.valid_pixels() for view in prepared.views("source"))
    for warning in unshown(meter.warnings):
        print(f"WARNING: {scene}: {warning}", file=sys.stderr)
    evaluations = {}
    with cost("evaluate", scene):
        for method in study.methods:
            folder = layout.novel_views(scene, method)
            views = measured_views(prepared, folder, read_kinds(folder), config.masks)
            evaluations[method] = evaluate(
                views, meter, color, config.masks, name=f"{scene} by {method}"
            )
            print(f"{scene} {method}: {summary(evaluations[method][1])}", flush=True)
        means = {method: of_scene for method, (_, of_scene) in evaluations.items()}
        strengths = measure_strengths(
            lambda method: measured_views(
                prepared, layout.novel_views(scene, method), ("given",), config.masks
            ),
            study.strengths,
            meter,
            means,
        )
    with (
        whole_folder(layout.scene_metrics(scene, PLAIN).parent) as scalars,
        whole_folder(layout.view_metrics(scene, PLAIN).parent) as tables,
        whole_folder(layout.frontier(scene, PLAIN).parent) as curves,
    ):
        for method, (rows, of_scene) in evaluations.items():
            write_json(scalars / layout.scene_metrics(scene, method).name, of_scene)
            write_tsv(tables / layout.view_metrics(scene, method).name, rows, columns_of(rows))
            curve = curves / layout.frontier(scene, method).name
            write_tsv(curve, strengths[method], STRENGTH_COLUMNS)


if __name__ == "__main__":
    launch(main)
