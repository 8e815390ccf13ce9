"""Stage `static_fix`: the eval frames of a static scene by the methods of a fixer."""

from pathlib import Path

from stages.difix.config import FixerConfig
from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json
from stages.run.methods import FIXERS, PLAIN
from stages.run.provenance import cost
from stages.run.settings.names import name_argument
from stages.run.settings.params import Params, add_override_option
from stages.scenes.static.config import CAMERAS, READ_BY, StaticConfig
from stages.splat.config import DistillConfig, TrainConfig


def main() -> None:
    """Write <results>/<camera>/fixed/<fixer>, or results/fixed/<scene>/<fixer> and its metrics."""
    parser = Arguments(description=__doc__)
    parser.add_argument("scene_dir", nargs="?", type=Path, help="a folder with static/ in it")
    parser.add_argument(
        "--scene", type=name_argument, help="a scene of the graph instead, with all its cameras"
    )
    parser.add_argument("--camera", choices=CAMERAS, help="whose Gaussians, of SCENE_DIR")
    parser.add_argument("--fixer", required=True, help=f"a folder, or {' or '.join(FIXERS)}")
    parser.add_argument("--prep-root", type=Path, help="the shared folder (else static/shared)")
    parser.add_argument("--result-root", type=Path, help="results, else results/static")
    add_override_option(parser)
    args = parser.parse_args()
    if (args.scene is None) == (args.camera is None):
        parser.error("name SCENE_DIR and --camera, or --scene")

    from stages.difix.applied import AppliedFixer
    from stages.quality.method_table import method_table
    from stages.scenes.static.paths import StaticPaths
    from stages.splat.captures.fixed_results import FixedCameras
    from stages.splat.captures.fixing import Fixing
    from stages.splat.captures.measuring import meter_of

    params = Params.read(overrides=args.overrides)
    static = params.section("static", StaticConfig)
    folder = layout.fixer(args.fixer) if args.fixer in FIXERS else Path(args.fixer)
    fixer = AppliedFixer.read(folder, params.section("difix", FixerConfig))
    meter = meter_of(params.section("evaluate", EvaluateConfig), layout.WEIGHTS)
    distill, train = params.section("distill", DistillConfig), params.section("train", TrainConfig)
    fixing = Fixing(fixer, static.methods, meter, distill, train)
    roots = {"raw": layout.raw, "shared": layout.static_shared, "results": layout.static_results}
    paths = StaticPaths.of(args.scene_dir, args.scene, args.prep_root, args.result_root, **roots)
    for line in params.unread(static=READ_BY["static_fix"], **fixing.unread):
        print(f"{paths.name}: {line}")
    print(f"{paths.name} by {fixer.name}: {fixer.runner.summary}", flush=True)
    for note in fixing.notes:
        print(f"note: {note}")
    scene = FixedCameras(fixing, static, paths.name, paths.prepared())
    if not paths.in_graph:
        with cost("static_fix", f"{paths.name}.{args.camera}.{fixer.name}"):
            written, methods = scene.below(paths.results / args.camera, args.camera)
        print(method_table(str(written), methods))
        return
    results = {camera: paths.results / camera for camera in static.cameras}
    with cost("static_fix", f"{paths.name}.{fixer.name}"):
        by_camera = scene.of_cameras(layout.fixed(paths.name, fixer.name), results)
    for (camera, _), methods in by_camera.items():
        print(method_table(f"{paths.name} {camera}", methods))
        for method in methods.keys() - {PLAIN}:
            write_json(layout.static_metrics(paths.name, camera, method), methods[method])


if __name__ == "__main__":
    launch(main)
