"""Send curves of trainings and tunings to an MLflow server, or to a folder of DVCLive."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.curves import Curve, Sink, of_tables, of_trainings, send_new
from stages.run.dvclive_folder import DvcliveFolder
from stages.run.entry import launch
from stages.run.files import read_tsv, work_root
from stages.run.mlflow_server import URI_VARIABLE, MlflowServer
from stages.run.plurals import counted
from stages.run.settings.params import Params
from stages.run.trainings import Trainings
from stages.run.user_paths import run_name
from stages.scenes.captures.config import CaptureStudy
from stages.scenes.study.config import StudyConfig

_LOOK_EVERY_S = 5.0


def main() -> None:
    """Send what is there, of finished runs and of running ones; with --follow until Ctrl-C."""
    parser = Arguments(description=__doc__)
    parser.add_argument("sink", choices=["mlflow", "dvclive"], help="the tracker")
    parser.add_argument("--to", default="", help=f"its server (${URI_VARIABLE}), or its folder")
    parser.add_argument("--experiment", default="splatfix", help="the name in MLflow")
    parser.add_argument("--follow", action="store_true", help="go on with what is trained now")
    args = parser.parse_args()
    sink: Sink
    if args.sink == "mlflow":
        sink = MlflowServer(args.to or os.environ.get(URI_VARIABLE, ""), args.experiment)
    else:
        sink = DvcliveFolder(Path(args.to or "dvclive"))
    trainings = Trainings(work_root())
    curves = list(finished())
    trainings.look()
    count = sum(map(sink.send, curves + of_trainings(trainings)))
    print(
        f"{len(curves)} finished, {len(trainings.known)} unfinished: {counted(count, 'point')} sent"
    )
    try:
        while args.follow:
            time.sleep(_LOOK_EVERY_S)
            trainings.look()
            send_new(sink, of_trainings(trainings))
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM: that is how following ends
        trainings.look()
        send_new(sink, of_trainings(trainings))


def finished() -> Iterator[Curve]:
    """Curves in metrics/plots of the study's scenes, its tuning and its captures."""
    params = Params.read()
    for scene in params.section("study", StudyConfig).scenes:
        path = layout.train_curves(scene)
        if path.is_file():
            for timestamp in dict.fromkeys(row["timestamp"] for row in read_tsv(path)):
                name = f"train: {scene} {timestamp}"
                yield of_tables(name, {"": path}, {"timestamp": timestamp})
    tables = {"": layout.tune_curve("loss"), "validation_": layout.tune_curve("validation")}
    if all(path.is_file() for path in tables.values()):
        yield of_tables("tune: tune", tables)
    study = params.section("capture_study", CaptureStudy)
    for capture in study.captures:
        for variant in study.variants:
            path = layout.capture_curve(capture, variant)
            if path.is_file():
                yield of_tables(
                    f"captures: {run_name(layout.result(capture, variant))}", {"": path}
                )


if __name__ == "__main__":
    launch(main)
