"""Stage `decide`: sentences that follow from the numbers, and turn when the numbers turn."""

import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_compare import (
    LEVELS,
    average,
    evaluation,
    repeat_with,
    select,
    workspace,  # noqa: F401
)

from stages import compare, decide
from stages.quality.keys import repeat_name
from stages.run import layout
from stages.scenes.study.roles import NO_RESERVE


def snapshot(
    monkeypatch: pytest.MonkeyPatch, tuned: float, base: float = 0.0, noise: float = 0.0
) -> str:
    """decision.md where the tuned and the base fixer gain so many dB on every scene.

    With `noise` there is a repeat, whose plain splat differs by so many dB.
    """
    select(["none", "base-post", "tuned-post"], "tuned-post")
    if noise:
        repeat_with([1])
        for scene, level in LEVELS.items():
            evaluation(repeat_name(scene, 1), "none", level + noise)
        average({"pair15": 20.9, "pair16": 22.9})
    for place, (scene, level) in enumerate(LEVELS.items()):
        evaluation(scene, "base-post", level + base)
        evaluation(scene, "tuned-post", level + tuned + 0.01 * place)
    compare.main()
    monkeypatch.setattr(sys, "argv", ["decide"])
    decide.main()
    return layout.decision().read_text()


def test_gain_is_reported_with_its_interval_and_the_least_possible_p(monkeypatch) -> None:
    text = snapshot(monkeypatch, tuned=1.0)
    assert "## tuned-post at strength 1\n" in text
    row = next(line for line in text.splitlines() if re.match(" {4}none +PSNR", line))
    assert row.split()[3:] == ["+1.01", "[+0.95,", "+1.08]", "2", "of", "2", "0.5", "difference"]
    assert "which with 2 scenes is at least 0.5" in text
    assert "tuning did not raise PSNR" not in text


def test_loss_is_called_a_loss(monkeypatch) -> None:
    text = snapshot(monkeypatch, tuned=-0.5, base=0.5, noise=0.01)
    assert "Against none: loss in PSNR (-0.48 dB)" in text.partition("## ")[0]
    assert next(line for line in text.splitlines() if "  -0.48 " in line).endswith("  loss")
    assert "tuning did not raise PSNR over base-post (-0.98 dB)" in text
    assert "At full strength tuned-post lowers PSNR (-0.48 dB)" in text


def test_scene_below_the_mean_colour_takes_the_meaning_from_the_verdict(monkeypatch) -> None:
    assert "worse than an image" not in snapshot(monkeypatch, tuned=1.0)
    evaluation("pair16", "none", 11.0)  # the mean colour has 12 dB
    text = snapshot(monkeypatch, tuned=1.0)
    warning = "**Warning: The plain Gaussians of pair16 are worse than an image of the mean colour"
    assert warning in text.partition("## Means")[0]


def test_subject_without_a_fixer_is_not_judged(monkeypatch) -> None:
    compare.main()
    monkeypatch.setattr(sys, "argv", ["decide"])
    decide.main()
    text = Path("metrics/decision.md").read_text()
    assert "No fixer is judged: `study.subject` is none." in text
    assert "base-post" in text
    assert "gain" not in text


def test_noise_floor_stands_first_and_names_the_differences(monkeypatch) -> None:
    text = snapshot(monkeypatch, tuned=1.0)
    assert text.count("Noise floor: not measured") == 1
    assert "The noise floor was not measured (`study.seeds` is empty), so nothing here is" in text
    text = snapshot(monkeypatch, tuned=1.0, noise=0.2)
    first = text.partition("## ")[0]
    assert (
        "Noise floor: 0.43 dB PSNR, 0.0000 SSIM (95%, from 2 trainings of the plain splat)" in first
    )
    assert "Against none: gain in PSNR (+1.01 dB)" in first
    assert "Against none-mean: no difference shown in PSNR (+0.12 dB: below the noise" in first
    assert "not measured (`study.seeds`" not in text


def test_first_lines_say_what_was_measured(monkeypatch) -> None:
    first = snapshot(monkeypatch, tuned=1.0).partition("## ")[0]
    assert "2 downstream scenes" in first
    assert "n = 2 views" in first
    assert "Fixer: the small fixer of this repository" in first
    assert "LPIPS was not measured" in first
    assert "Noise floor: not measured" in first
    assert "Strength: 1" in first
    assert "pair02, by 5.500 dB over strength 0.5" in first
    assert "intervals over n = 2 scenes" in first
    assert "Leak guard: the roles of the scenes refused, 7 errors" in first, "scenes of no role"


def test_empty_reserve_is_said(monkeypatch) -> None:
    assert "reserved_scenes" not in snapshot(monkeypatch, tuned=1.0)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["study"]["reserved_scenes"] = []
    yaml.dump(params, Path("params.yaml"))
    monkeypatch.setattr(sys, "argv", ["compare"])
    compare.main()
    decide.main()
    assert f"- Note: {NO_RESERVE}\n" in layout.decision().read_text()
