"""Stage `fixed_views`: a scene's target views by every method of the untuned or the tuned fixer."""

from stages.difix.config import FixerConfig
from stages.quality.config import NovelViewsConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import folder_hash, whole_folder
from stages.run.methods import FIXERS, PLAIN, Method, methods_of
from stages.run.plurals import counted
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import CHECK, Params, did_you_mean
from stages.scenes.study.config import StudyConfig
from stages.splat.config import DistillConfig, TrainConfig


def main() -> None:
    """Write data/novel_views/<scene>/<fixer>, a folder per method."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a trained scene")
    parser.add_argument("--fixer", required=True, help=" or ".join(FIXERS))
    args = parser.parse_args()
    scene, fixer, params = args.scene, args.fixer, Params.read()
    study = params.section("study", StudyConfig)
    methods = methods_of(fixer, study.methods)
    if fixer not in FIXERS or not methods:
        raise UserError(
            "--fixer",
            repr(fixer),
            expected=f"one that study.methods needs, of {', '.join(FIXERS)}",
            hint=did_you_mean(fixer, list(FIXERS)),
            fix=CHECK,
        )

    from stages.difix.inference import Runner
    from stages.difix.network.training_record import describe
    from stages.difix.weights.evaluation_notes import evaluation_notes
    from stages.difix.weights.folders import read_folder
    from stages.run.checkpoint import forget
    from stages.scenes.novel_views import read_aligned
    from stages.scenes.poses.calibration import read_calibration
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.views.fixed_views import DistillRecipe, FixedViews
    from stages.splat.views.novel_views import TargetRenderer

    fixing = params.section("difix", FixerConfig)
    rendering = params.section("novel_views", NovelViewsConfig)
    distilling = params.section("distill", DistillConfig)
    recipe = DistillRecipe(distilling, params.section("train", TrainConfig))
    weights, prepared = layout.fixer(fixer), Scene.read(layout.scene(scene))
    prepared.cameras("target")  # raises without target cameras
    loaded = read_folder(weights)
    record, folder = loaded.training_record, layout.scene(scene)
    for note in evaluation_notes(weights, record, scene, folder, study.tuning_scenes):
        print(f"note: {note}")
    runner = Runner(loaded, fixing)
    backend, reason = choose_backend(rendering.backend)
    print(f"{scene} by {fixer}: splat {backend} ({reason}); fixer {runner.summary}", flush=True)
    calibration = read_calibration(layout.calibrated(scene))
    # All methods are rendered from the poses that were aligned to the plain splat.
    aligned = read_aligned(layout.novel_views(scene, PLAIN)) if rendering.align else None
    targets = TargetRenderer(prepared, calibration, rendering, backend, aligned)
    views = FixedViews(targets, layout.splats(scene), runner.fix, recipe, runner.rule)
    identity = folder_hash(weights) + fixing.model_dump_json()
    spent = cost("fixed_views", f"{scene}.{fixer}")
    with spent, whole_folder(layout.fixed_views(scene, fixer)) as folder:
        describe(folder, weights, record)
        for method in methods:
            info = views.render(folder / Method.parse(method).form, method, identity)
            count = counted(info["views"], "view")
            print(f"{scene} by {method}: {count}, {' and '.join(info['kinds'])}")
    for method in methods:
        forget("distill", f"{scene}.{method}")


if __name__ == "__main__":
    launch(main)
