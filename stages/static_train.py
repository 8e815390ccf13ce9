"""Stage `static_train`: Gaussians of a static scene from the images of one kind of camera."""

from pathlib import Path

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.run.user_paths import run_name
from stages.scenes.static.config import CAMERAS, READ_BY, StaticConfig
from stages.splat.config import TrainConfig


def main() -> None:
    """Write <results>/<camera>/checkpoints."""
    parser = Arguments(description=__doc__)
    parser.add_argument("scene_dir", nargs="?", type=Path, help="a folder with static/ in it")
    parser.add_argument(
        "--scene", type=name_argument, help="a scene of the graph instead of SCENE_DIR"
    )
    parser.add_argument("--camera", required=True, choices=CAMERAS, help="whose images")
    parser.add_argument("--prep-root", type=Path, help="the shared folder (else static/shared)")
    parser.add_argument("--result-root", type=Path, help="results, else results/static")
    add_override_option(parser)
    args = parser.parse_args()

    from stages.run.checkpoint import forget
    from stages.scenes.static.paths import StaticPaths
    from stages.splat.captures.static_training import check_trained, train_static

    params = Params.read(overrides=args.overrides)
    static, config = params.section("static", StaticConfig), params.section("train", TrainConfig)
    paths = StaticPaths.of(
        args.scene_dir,
        args.scene,
        args.prep_root,
        args.result_root,
        raw=layout.raw,
        shared=layout.static_shared,
        results=layout.static_results,
    )
    for line in params.unread(static=READ_BY["static_train"]):
        print(f"{paths.name}: {line}")
    name, result = f"{paths.name}.{args.camera}", paths.results / args.camera
    if static.runtime.skip_train:
        check_trained(result)
        print(f"{name}: not trained (runtime.static.skip_train), the result is kept")
        return
    # Scenes of equal names outside the graph have separate states.
    resume_as = name if paths.in_graph else run_name(result)
    with cost("static_train", name):
        fitted = train_static(
            paths.prepared(),
            args.camera,
            static,
            config,
            result,
            resume_as,
            params.overridden_keys("train"),
        )
    last = next(row for row in reversed(fitted.evaluations) if row["split"] == "train")
    scalars = {key: last[key] for key in ("step", "psnr", "ssim", "gaussians")}
    if paths.in_graph:
        metrics = {**scalars, "views": len(fitted.cameras)}
        write_json(layout.static_train_metrics(paths.name, args.camera), metrics)
    forget("captures", resume_as)
    print(f"{name}: training views {last['psnr']:.2f} dB, {last['gaussians']} Gaussians")


if __name__ == "__main__":
    launch(main)
