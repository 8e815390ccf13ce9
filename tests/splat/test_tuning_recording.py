"""The tuning as a recording: samples and curves by step, read by Rerun's own reader."""

import sys
from pathlib import Path

import numpy as np
import pytest

from stages.commands import tuning_recording
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import write_tsv
from stages.scenes.images import write_png

STEPS = (0, 50, 100)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for step in STEPS:
        sheet = np.full((4, 6, 3), step / 100, np.float32)
        write_png(layout.fixer("tuned") / "samples" / f"step_{step:06d}.png", sheet)
    loss = [{"step": step, "loss": 1 / (1 + step), "lpips": None} for step in range(1, 5)]
    write_tsv(layout.tune_curve("loss"), loss, list(loss[0]))
    checks = [{"step": step, "psnr": 20 + step} for step in STEPS]
    write_tsv(layout.tune_curve("validation"), checks, list(checks[0]))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tuning_recording", *arguments])
    tuning_recording.main()


def test_samples_and_curves_are_over_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rerun_chunk = pytest.importorskip("rerun.chunk")
    run(monkeypatch, "out/tuning.rrd")
    assert capsys.readouterr().out.startswith("out/tuning.rrd: 3 sheets of samples")
    tables = {}
    for chunk in rerun_chunk.RrdReader(Path("out/tuning.rrd")).stream().to_chunks():
        tables[chunk.entity_path] = chunk.to_record_batch()
    sheets = tables["/samples"]
    assert sheets["step"].to_pylist() == list(STEPS)
    path = layout.fixer("tuned") / "samples" / "step_000050.png"
    assert bytes(sheets["EncodedImage:blob"].to_pylist()[1][0]) == path.read_bytes()
    assert tables["/validation/psnr"]["step"].to_pylist() == list(STEPS)
    values = tables["/validation/psnr"]["Scalars:scalars"].to_pylist()
    assert values == [[20.0], [70.0], [120.0]]
    assert tables["/loss/loss"]["step"].to_pylist() == [1, 2, 3, 4]
    assert "/loss/lpips" not in tables, "what was not measured"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"tuning\.mp4: no \.rrd"):
        run(monkeypatch, "tuning.mp4")
    Path("there.rrd").touch()
    with pytest.raises(UserError, match=r"there\.rrd: exists already"):
        run(monkeypatch, "there.rrd")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rerun", None)
        with pytest.raises(UserError, match=r"tuning\.rrd: rrd needs a package"):
            run(patch, "tuning.rrd")
    for sheet in (layout.fixer("tuned") / "samples").iterdir():
        sheet.unlink()
    (layout.fixer("tuned") / "samples").rmdir()
    with pytest.raises(UserError, match="samples: no such folder") as caught:
        run(monkeypatch, "tuning.rrd")
    assert "tune.samples" in str(caught.value)
