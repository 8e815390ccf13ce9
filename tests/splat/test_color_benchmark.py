"""The benchmark of colour per camera, as its documentation calls it."""

import sys
from pathlib import Path

import pytest
import torch
from known_scene import SCENE

from benchmarks import color as benchmark
from stages.run import layout
from stages.run.files import read_json

ROOT = Path(__file__).parents[2]


def test_recipes_are_compared_by_tint(
    scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    arguments = ["--scenes", str(layout.scene(SCENE)), str(layout.calibrated(SCENE))]
    arguments += ["--recipes", "off", "0.01,0.1", "--gains", "0", "0.3", "--steps", "12"]
    monkeypatch.setattr(sys, "argv", ["color", *arguments, "--out", "rows.json"])
    benchmark.main()
    rows = read_json(tmp_path / "rows.json")["rows"]
    found = {(row["scene"], row["gain"], row["recipe"]): row for row in rows}
    assert len(found) == len(rows) == 8
    for gain in (0.0, 0.3):
        plain, learnt = (found[SCENE, gain, recipe] for recipe in ("off", "0.01,0.1"))
        assert plain["psnr"] != learnt["psnr"]
        # Without tints the image is that of its neighbours' colours too.
        assert (plain["psnr"] == pytest.approx(plain["neighbours"], abs=1e-4)) == (gain == 0)
        assert found["mean", gain, "off"]["cc_psnr"] == plain["cc_psnr"]
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_tints_are_independent_and_within_their_limits() -> None:
    tints = benchmark.random_tints(500, (0.2, 0.05), 0)
    gains, offsets = tints[:, range(3), range(3)] - 1, tints[:, :, 3]
    for values, limit in ((gains, 0.2), (offsets, 0.05)):
        assert 0.95 * limit < float(values.abs().max()) <= limit
        assert float((torch.corrcoef(values.T) - torch.eye(3)).abs().max()) < 0.15
    tints[:, range(3), range(3)] = 0
    assert not tints[..., :3].any()
    assert not torch.equal(benchmark.random_tints(2, (0.2, 0.0), 1)[..., :3], tints[:2, :, :3])
