"""The benchmark of pose optimisation, as its documentation calls it."""

import json
import sys
from pathlib import Path

import pytest
from known_scene import SCENE
from small_capture import write_capture

from benchmarks import pose_optimisation
from stages.run import layout
from stages.run.files import read_json
from stages.scenes.poses.calibration import read_calibration

ROOT = Path(__file__).parents[2]


def test_rates_are_compared_on_a_capture_and_a_scene(
    scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    marker = layout.calibrated(SCENE) / "calibration.json"
    sources = read_calibration(layout.calibrated(SCENE)).sources
    certain = [[1e-4 * (a == b) for a in range(6)] for b in range(6)]
    info = read_json(marker) | {"pose_covariance": dict.fromkeys(sources, certain)}
    marker.write_text(json.dumps(info))
    arguments = ["--captures", str(write_capture(tmp_path / "room"))]
    arguments += ["--scenes", str(layout.scene(SCENE)), str(layout.calibrated(SCENE))]
    arguments += ["--rates", "off", "1e-5", "auto", "--seeds", "1", "--steps", "3"]
    monkeypatch.setattr(sys, "argv", ["pose_optimisation", *arguments, "--out", "rows.json"])
    pose_optimisation.main()
    rows = {(row["case"], row["rate"]): row for row in read_json(tmp_path / "rows.json")["rows"]}
    assert len(rows) == 6
    # Poses of a capture take the recipe's rate, those of a calibrated scene their deviations.
    assert rows["room", "auto"] == rows["room", "1e-5"] | {"rate": "auto"}
    assert rows[SCENE, "off"]["moved_deg"] == 0
    assert rows[SCENE, "auto"]["moved_deg"] > 0.1 > rows[SCENE, "1e-5"]["moved_deg"]
    assert rows[SCENE, "off"]["error_deg"] < 1e-3 < rows[SCENE, "auto"]["error_deg"]
    assert "error_deg" not in rows["room", "off"]
    assert len(capsys.readouterr().out.splitlines()) == 7
