"""Stage `static_evaluate`: one kind of camera's Gaussians, measured at the eval frames.

Masks are the pixels that are covisible in the training images; whole images are measured too.
"""

from pathlib import Path

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json, write_tsv
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.scenes.static.config import CAMERAS, READ_BY, StaticConfig
from stages.splat.config import TrainConfig


def main() -> None:
    """Write <results>/<camera>/eval_on_iphone_eval; masks and alignment into the shared folder."""
    parser = Arguments(description=__doc__)
    parser.add_argument("scene_dir", nargs="?", type=Path, help="a folder with static/ in it")
    parser.add_argument(
        "--scene", type=name_argument, help="a scene of the graph instead of SCENE_DIR"
    )
    parser.add_argument("--camera", required=True, choices=CAMERAS, help="whose Gaussians")
    parser.add_argument("--prep-root", type=Path, help="the shared folder (else static/shared)")
    parser.add_argument("--result-root", type=Path, help="results, else results/static")
    add_override_option(parser)
    args = parser.parse_args()

    from stages.quality.keys import further_in
    from stages.scenes.static.paths import StaticPaths
    from stages.splat.captures.measuring import meter_of
    from stages.splat.captures.static_evaluation import COLUMNS, evaluate_static, summary
    from stages.splat.captures.static_training import check_same_images

    params = Params.read(overrides=args.overrides)
    static = params.section("static", StaticConfig)
    if static.covi_device == "auto":
        device = params.value("train", "backend", TrainConfig)
        static = static.model_copy(update={"covi_device": device})
    meter = meter_of(params.section("evaluate", EvaluateConfig), layout.WEIGHTS)
    paths = StaticPaths.of(
        args.scene_dir,
        args.scene,
        args.prep_root,
        args.result_root,
        raw=layout.raw,
        shared=layout.static_shared,
        results=layout.static_results,
    )
    for line in params.unread(static=READ_BY["static_evaluate"], train=("backend",)):
        print(f"{paths.name}: {line}")
    name = f"{paths.name}.{args.camera}"
    if static.runtime.skip_eval:
        print(f"{name}: not evaluated (runtime.static.skip_eval)")
        return
    shared, result = paths.prepared(), paths.results / args.camera
    if not paths.in_graph:  # in the graph names differ, and DVC tracks dependencies
        check_same_images(shared, args.camera, result)
    with cost("static_evaluate", name):
        rows, means = evaluate_static(shared, args.camera, static, result, meter)
    if paths.in_graph:
        write_json(layout.static_metrics(paths.name, args.camera), means)
        write_tsv(layout.static_views(paths.name, args.camera), rows, [*COLUMNS, *further_in(rows)])
    print(f"{name}: {summary(means)}")


if __name__ == "__main__":
    launch(main)
