"""Stage `average`: the mean of method `none`'s renders over all seeds, measured as `none-mean`."""

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import write_json, write_tsv
from stages.run.methods import PLAIN
from stages.run.plurals import counted
from stages.run.provenance import cost
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig


def main() -> None:
    """Write metrics/averages.json and metrics/plots/averages.tsv; without seeds both are empty."""
    Arguments(description=__doc__).parse_args()

    from stages.quality.averages import COLUMNS as NAMES
    from stages.quality.evaluation import Meter, columns_of, evaluate, mean_color, summary
    from stages.quality.keys import NONE_MEAN, repeat_name
    from stages.scenes.scene import Scene
    from stages.splat.views.averaged_views import averaged_views

    params = Params.read()
    config, study = params.section("evaluate", EvaluateConfig), params.section("study", StudyConfig)
    evaluated = set(study.evaluated_scenes)
    scenes = [scene for scene in study.downstream_scenes if scene in evaluated and study.seeds]
    means, rows = {}, []
    if scenes:
        meter = Meter.build(config, layout.WEIGHTS)
    for name in scenes:
        with cost("average", name):
            scene = Scene.read(layout.scene(name))
            repeats = [repeat_name(name, seed) for seed in study.seeds]
            folders = [layout.novel_views(one, PLAIN) for one in (name, *repeats)]
            color = mean_color(view.valid_pixels() for view in scene.views("source"))
            views = averaged_views(scene, folders, config.masks)
            label = f"{name} by {NONE_MEAN}"
            measured, means[name] = evaluate(views, meter, color, config.masks, name=label)
        rows += [{"scene": name} | row for row in measured]
        print(
            f"{name} {NONE_MEAN}, {counted(len(folders), 'training')}: {summary(means[name])}",
            flush=True,
        )
    if not scenes:
        print("study.seeds is empty: nothing to average")
    of_scenes, of_views = layout.averaged()
    write_json(of_scenes, means)
    write_tsv(of_views, rows, [NAMES[0], *columns_of(rows)])


if __name__ == "__main__":
    launch(main)
