"""DVCLive as a sink: only when asked, and never at the cost of dvc.yaml."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv
from stages.run.live_curves import VARIABLE, LiveCurve

ROWS = [{"step": 5, "loss": 0.5, "gram": None}, {"step": 10, "loss": 0.25, "gram": None}]


def write_rows() -> None:
    curve = LiveCurve("tune")
    for row in ROWS:
        curve.write(row)


def test_nothing_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    write_rows()
    assert list(tmp_path.iterdir()) == []


def test_asked_it_follows_the_curve_and_leaves_dvc_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "live")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    text = "stages:\n  a:\n    cmd: echo\n"
    Path("dvc.yaml").write_text(text)
    write_rows()
    curve = read_tsv(Path("live/tune/plots/metrics/loss.tsv"))
    assert [(row["step"], float(row["loss"])) for row in curve] == [("5", 0.5), ("10", 0.25)]
    assert read_json(Path("live/tune/metrics.json"))["loss"] == 0.25
    assert not Path("live/tune/plots/metrics/gram.tsv").exists()
    assert Path("dvc.yaml").read_text() == text
    assert sorted(path.as_posix() for path in Path().rglob("dvc.yaml")) == ["dvc.yaml"]


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    LiveCurve("tune", active=False).write(ROWS[0])
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(UserError, match="uv pip install dvclive"):
        LiveCurve("tune")
