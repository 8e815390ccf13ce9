"""Stage `repeat`: the plain splat of a scene from another seed, rendered and measured."""

from dataclasses import replace

from stages.quality.config import EvaluateConfig, NovelViewsConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import scratch_folder, whole_folder, write_json, write_tsv
from stages.run.methods import PLAIN
from stages.run.process.locks import alone
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params
from stages.scenes.sources.input_checks import repeated_seed
from stages.splat.config import TrainConfig
from stages.splat.training.shares import parse_share, train_share, train_shares


def main() -> None:
    """Write data/novel_views/<scene>.seed<seed>/none and its metrics; keep no Gaussians.

    With `--timestamps` train those into folders of `--into` instead.
    """
    parser = Arguments(description=__doc__)
    parser.add_argument("--scene", type=name_argument, required=True, help="a calibrated scene")
    parser.add_argument("--seed", required=True, type=int, help="one of study.seeds")
    args = parse_share(parser)

    from stages.quality.evaluation import Meter, columns_of, evaluate, mean_color, summary
    from stages.quality.keys import repeat_name
    from stages.run.checkpoint import forget
    from stages.scenes.novel_views import read_kinds
    from stages.scenes.poses.calibration import read_calibration
    from stages.scenes.scene import Scene
    from stages.splat.raster import choose_backend
    from stages.splat.views.measured_views import measured_views
    from stages.splat.views.novel_views import TargetRenderer, load_gaussians

    params = Params.read()
    train = params.section("train", TrainConfig)
    rendering = params.section("novel_views", NovelViewsConfig)
    measuring = params.section("evaluate", EvaluateConfig)
    if args.seed == train.seed:
        raise repeated_seed(args.seed, "study.seeds")
    name, calibrated = repeat_name(args.scene, args.seed), layout.calibrated(args.scene)
    scene = Scene.read(layout.scene(args.scene))
    trained = replace(scene, name=name)  # its resume states and costs are none of stage train
    config = train.model_copy(update={"seed": args.seed})
    if args.timestamps:
        train_share(trained, calibrated, args.timestamps, args.into, config)
        return
    backend, _ = choose_backend(rendering.backend)
    meter = Meter.build(measuring, layout.WEIGHTS)  # may raise, so before hours of training
    renders = layout.novel_views(name, PLAIN)
    with alone(renders), cost("repeat", name), scratch_folder("repeat", name) as splats:
        entry = ["stages.repeat", "--scene", args.scene, "--seed", str(args.seed)]
        train_shares(trained, calibrated, splats, config, entry)
        with whole_folder(renders) as folder:
            targets = TargetRenderer(scene, read_calibration(calibrated), rendering, backend)
            targets.render(folder, PLAIN, lambda time: load_gaussians(splats, time, backend))
    color = mean_color(view.valid_pixels() for view in scene.views("source"))
    views = measured_views(scene, renders, read_kinds(renders), measuring.masks)
    rows, means = evaluate(views, meter, color, measuring.masks, name=name)
    write_json(layout.scene_metrics(name, PLAIN), means)
    write_tsv(layout.view_metrics(name, PLAIN), rows, columns_of(rows))
    forget("train", name)
    print(f"{name}: {summary(means)}")


if __name__ == "__main__":
    launch(main)
