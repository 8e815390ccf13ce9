"""Curves in other trackers: new points once, running and finished trainings alike."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages import curves
from stages.run import layout
from stages.run.curves import Curve, of_tables, of_training, of_trainings, send_new
from stages.run.dvclive_folder import DvcliveFolder
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, write_json, write_tsv
from stages.run.mlflow_server import MlflowServer
from stages.run.trainings import Training, Trainings

ROOT = Path(__file__).parents[2]
NAME = "train: room 000021"
ROWS = [{"step": 5, "loss": 0.5, "gram": None}, {"step": 10, "loss": 0.25, "gram": None}]


def curve(rows: list[dict], *, is_finished: bool = False, name: str = NAME) -> Curve:
    series = {"loss": [(row["step"], row["loss"]) for row in rows]}
    return Curve(name, series, is_finished, 1000.0)


class StandIn(ThreadingHTTPServer):
    """The part of MLflow's REST API that is used, as its documentation has it, in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict] = {}
        self.token = ""


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self._answer(json.loads(self.rfile.read(size)))

    def log_message(self, *_: object) -> None:
        """No lines on stderr."""

    def _answer(self, body: dict) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = url.path.removeprefix("/api/2.0/mlflow/")
        token = self.server.token
        if token and self.headers["Authorization"] != f"Bearer {token}":
            return self._send(401, {"error_code": "UNAUTHENTICATED", "message": "who are you"})
        method = getattr(self, f"_{path.replace('/', '_').replace('-', '_')}", None)
        if method is None:
            return self._send(404, {})
        return method(body, query)

    def _send(self, code: int, value: dict) -> None:
        text = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _experiments_get_by_name(self, _: dict, query: dict) -> None:
        identifier = self.server.experiments.get(query["experiment_name"])
        if identifier is None:
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
            return self._send(404, missing)
        return self._send(200, {"experiment": {"experiment_id": identifier}})

    def _experiments_create(self, body: dict, _: dict) -> None:
        identifier = self.server.experiments.setdefault(body["name"], str(len(body["name"])))
        self._send(200, {"experiment_id": identifier})

    def _runs_create(self, body: dict, _: dict) -> None:
        identifier = f"run{len(self.server.runs)}"
        info = {"run_id": identifier, "run_name": body["run_name"], "status": "RUNNING"}
        self.server.runs[identifier] = {"info": info, "tags": body["tags"], "metrics": []}
        self._send(200, {"run": {"info": info}})

    def _runs_search(self, body: dict, _: dict) -> None:
        value = body["filter"].split("'")[1]
        runs = [
            {"info": run["info"]}
            for run in self.server.runs.values()
            if run["tags"] == [{"key": "splatfix.curve", "value": value}]
        ]
        self._send(200, {"runs": runs} if runs else {})

    def _runs_log_batch(self, body: dict, _: dict) -> None:
        assert len(body["metrics"]) <= 1000
        self.server.runs[body["run_id"]]["metrics"] += body["metrics"]
        self._send(200, {})

    def _runs_update(self, body: dict, _: dict) -> None:
        self.server.runs[body["run_id"]]["info"]["status"] = body["status"]
        self._send(200, {})

    def _runs_get(self, _: dict, query: dict) -> None:
        self._send(200, {"run": self.server.runs[query["run_id"]]})

    def _metrics_get_history(self, _: dict, query: dict) -> None:
        metrics = self.server.runs[query["run_id"]]["metrics"]
        kept = [one for one in metrics if one["key"] == query["metric_key"]]
        self._send(200, {"metrics": kept} if kept else {})


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=["stand_in", "mlflow"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A tracking server: the stand-in everywhere, and MLflow's own where it is installed."""
    if request.param == "stand_in":
        yield f"http://127.0.0.1:{request.getfixturevalue('stand_in').server_port}"
        return
    command = os.environ.get("SPLATFIX_TEST_MLFLOW") or shutil.which("mlflow")
    if command is None:
        pytest.skip("no command mlflow: it needs older packages than this environment has")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    words = ["server", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", "18555"]
    address = "http://127.0.0.1:18555"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([command, *words, "--workers", "1"], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def history(uri: str, run: str, key: str = "loss") -> list[tuple[int, float]]:
    query = urllib.parse.urlencode({"run_id": run, "metric_key": key})
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/metrics/get-history?{query}") as answer:
        metrics = json.load(answer).get("metrics", [])
    return [(int(one["step"]), one["value"]) for one in metrics]


def test_server_gets_each_point_once_and_another_beginning_is_another_run(uri: str) -> None:
    first = MlflowServer(uri, "a study")
    assert first.send(curve(ROWS[:1])) == 1
    assert first.send(curve(ROWS[:1])) == 0
    assert first.send(curve(ROWS)) == 1
    # Another process, after the run has ended: it has all of it.
    second = MlflowServer(uri, "a study")
    assert second.send(curve(ROWS, is_finished=True)) == 0
    longer = [*ROWS, {"step": 15, "loss": 0.125}]
    assert second.send(curve(longer, is_finished=True)) == 1
    other = [{"step": 5, "loss": 0.75}]
    assert second.send(curve(other)) == 1
    assert second.send(curve(ROWS, name="tune: tune")) == 2

    third = MlflowServer(uri, "a study")
    run, before = third._run_of(curve(longer))
    assert before == {"loss": [(5, 0.5), (10, 0.25), (15, 0.125)]}
    assert history(uri, run) == before["loss"]
    different, before = third._run_of(curve(other))
    assert different != run
    assert before == {"loss": [(5, 0.75)]}
    assert third._run_of(curve(ROWS, name="tune: tune"))[0] not in (run, different)
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/runs/get?run_id={run}") as answer:
        assert json.load(answer)["run"]["info"]["status"] == "FINISHED"


def test_refusals_of_a_server_say_what_to_do(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{stand_in.server_port}"
    stand_in.token = "secret"
    with pytest.raises(UserError, match=r"who are you \(HTTP 401\)\n.*MLFLOW_TRACKING_TOKEN"):
        MlflowServer(address, "a")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    MlflowServer(address, "a")
    with pytest.raises(UserError, match="no answer of a tracking server"):
        MlflowServer("http://127.0.0.1:9", "a")
    with pytest.raises(UserError, match="mlflow server --backend-store-uri"):
        MlflowServer("sqlite:///mlflow.db", "a")


def test_access_to_a_server_stays_with_it_and_out_of_messages(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """No lines on stderr."""

    def redirect(self: _Handler) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{elsewhere.server_port}/login")
        self.end_headers()

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    monkeypatch.setattr(_Handler, "do_GET", redirect)
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="HTTP 404"):
            MlflowServer(f"http://127.0.0.1:{stand_in.server_port}", "a")
        elsewhere.shutdown()
    assert got == [None]

    for address in ("http://me:hunter2@127.0.0.1:9", "ftp://me:hunter2@127.0.0.1"):
        with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME") as refused:
            MlflowServer(address, "a")
        assert "hunter2" not in str(refused.value)
    with pytest.raises(UserError, match="no address of a tracking server"):
        MlflowServer("http://[half", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2\r\n")
    with pytest.raises(UserError, match="without line ends") as refused:
        MlflowServer(f"http://127.0.0.1:{stand_in.server_port}", "a")
    assert "hunter2" not in str(refused.value)


def test_series_that_comes_later_is_added_to_the_run(stand_in: StandIn) -> None:
    server = MlflowServer(f"http://127.0.0.1:{stand_in.server_port}", "a")
    scores = {"train_psnr": [(1, 20.0)]}
    assert server.send(Curve(NAME, scores, is_finished=False, written_s=1000.0)) == 1
    later = {**scores, "loss": [(5, 0.5)]}
    assert server.send(Curve(NAME, later, is_finished=False, written_s=1001.0)) == 1
    assert len(stand_in.runs) == 1


def test_dvclive_folder_has_each_point_once_and_dvc_yaml_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    text = "stages:\n  a:\n    cmd: echo\n"
    Path("dvc.yaml").write_text(text)
    table = Path("live/train-room-000021/plots/metrics/loss.tsv")

    def losses() -> list[tuple[str, float]]:
        return [(row["step"], float(row["loss"])) for row in read_tsv(table)]

    assert DvcliveFolder(Path("live")).send(curve(ROWS[:1])) == 1
    assert losses() == [("5", 0.5)]
    assert DvcliveFolder(Path("live")).send(curve(ROWS)) == 1
    assert DvcliveFolder(Path("live")).send(curve(ROWS)) == 0
    assert losses() == [("5", 0.5), ("10", 0.25)]
    assert read_json(Path("live/train-room-000021/metrics.json"))["loss"] == 0.25
    assert DvcliveFolder(Path("live")).send(curve([{"step": 5, "loss": 0.75}])) == 1
    assert losses() == [("5", 0.75)], "another run of this name replaces it"
    assert Path("dvc.yaml").read_text() == text
    assert sorted(path.as_posix() for path in Path().rglob("dvc.yaml")) == ["dvc.yaml"]


def test_missing_dvclive_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(UserError, match="uv pip install dvclive"):
        DvcliveFolder(tmp_path)


def test_running_and_finished_training_are_one_curve(tmp_path: Path) -> None:
    """What was sent while a training ran is not sent again from the table of its stage."""
    path = tmp_path / "train" / "room" / "key" / "progress.json"
    values = {"name": "room 000021", "step": 10, "steps": 10, "curve": ROWS}
    evaluations = [{"step": 10, "split": "train", "psnr": 20.5, "ssim": 0.5, "gaussians": 7}]
    write_json(path, values | {"evaluations": evaluations})
    running = of_training(Training.read(path))
    assert running.series["train_psnr"] == [(10, 20.5)]
    table = tmp_path / "room.tsv"
    rows = [{"timestamp": time, **row} for time in ("000021", "000033") for row in ROWS]
    write_tsv(table, rows, ["timestamp", "step", "loss", "gram"])
    finished = of_tables(NAME, {"": table}, {"timestamp": "000021"})
    assert (running.name, running.series["loss"]) == (finished.name, finished.series["loss"])
    assert "gram" not in finished.series, "nothing was measured"


def test_validations_of_the_fixer_itself_are_in_the_curve(tmp_path: Path) -> None:
    path = tmp_path / "tune" / "fixer" / "key" / "progress.json"
    scores = {"psnr": 20.0, "ssim": 0.5, "lpips": None}
    validations = [
        {"step": 0, "row": "identity", **scores},
        {"step": 0, "row": "untuned", **scores},
        {"step": 0, "row": "untuned_wrong", **scores, "psnr": 1.0},
        {"step": 5, "row": "fixed", **scores, "psnr": 21.0},
    ]
    rows = {"curve": ROWS, "validations": validations}
    write_json(path, {"name": "tune", "step": 10, "steps": 20, **rows})
    live = of_training(Training.read(path))
    assert live.name == "tune: tune"
    assert live.series["validation_psnr"] == [(0, 20.0), (5, 21.0)]
    assert "validation_lpips" not in live.series


def test_command_sends_what_is_there_and_follows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", "work")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    columns = ["timestamp", "step", "loss", "gram"]
    write_tsv(
        layout.train_curves("hi4d_pair00_dance"),
        [{"timestamp": "000021", **row} for row in ROWS],
        columns,
    )
    progress = Path("work/train/hall/key/progress.json")
    values = {"name": "hall 000021", "step": 5, "steps": 20}
    write_json(progress, values | {"curve": ROWS[:1]})
    looks = []

    def look(_: float) -> None:
        looks.append(None)
        if len(looks) == 1:
            write_json(progress, values | {"curve": ROWS})
            os.utime(progress, ns=(0, 1))
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(curves.time, "sleep", look)
    monkeypatch.setattr(sys, "argv", ["curves", "dvclive", "--to", "live", "--follow"])
    curves.main()
    said = capsys.readouterr().out
    assert "1 finished, 1 unfinished: 3 points sent" in said
    assert "train: hall 000021: 1 point sent" in caplog.text
    rows = read_tsv(Path("live/train-hall-000021/plots/metrics/loss.tsv"))
    assert [row["step"] for row in rows] == ["5", "10"]


def test_server_that_is_away_for_a_while_costs_no_points(
    stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = MlflowServer(f"http://127.0.0.1:{stand_in.server_port}", "a")
    write_json(
        tmp_path / "train" / "room" / "key" / "progress.json",
        {"name": "room 000021", "step": 10, "steps": 20, "curve": ROWS},
    )
    trainings = Trainings(tmp_path)
    trainings.look()
    stand_in.token = "secret"
    send_new(sink, of_trainings(trainings))
    assert "HTTP 401" in caplog.text
    assert not stand_in.runs
    stand_in.token = ""
    send_new(sink, of_trainings(trainings))
    (run,) = stand_in.runs.values()
    assert [(one["step"], one["value"]) for one in run["metrics"]] == [(5, 0.5), (10, 0.25)]
