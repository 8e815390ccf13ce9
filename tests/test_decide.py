"""Stage `decide`: sentences that follow from the numbers, and turn when the numbers turn."""

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_compare import LEVELS, average, evaluation, select, workspace  # noqa: F401

from stages import compare, decide
from stages.quality.keys import repeat_name
from stages.run import layout
from stages.scenes.study.roles import NO_RESERVE


def snapshot(monkeypatch: pytest.MonkeyPatch, tuned: float, base: float = 0.0) -> str:
    """decision.md where the tuned and the base fixer gain so many dB on every scene."""
    select(["none", "base-post", "tuned-post"], "none")
    for place, (scene, level) in enumerate(LEVELS.items()):
        evaluation(scene, "base-post", level + base)
        evaluation(scene, "tuned-post", level + tuned + 0.01 * place)
    compare.main()
    monkeypatch.setattr(sys, "argv", ["decide"])
    decide.main()
    return layout.decision().read_text()


def test_gain_is_reported_with_its_interval_and_the_least_possible_p(monkeypatch) -> None:
    text = snapshot(monkeypatch, tuned=1.0)
    assert "## tuned-post" in text
    assert "PSNR (dB) against none: +1.01" in text
    assert "better on 2 of 2 scenes" in text
    assert "the smallest possible with 2 scenes is 0.5" in text
    assert "In PSNR (dB) tuned-post improves on none, beyond the interval over scenes" in text
    assert "Tuning did not improve" not in text


def test_loss_is_called_a_loss(monkeypatch) -> None:
    text = snapshot(monkeypatch, tuned=-0.5, base=0.5)
    assert "tuned-post falls behind none" in text
    assert "Tuning did not improve on base-post (-0.98 dB)" in text
    assert "tuned-post lowers PSNR (-0.48 dB)" in text


def test_scene_below_the_mean_colour_takes_the_meaning_from_the_verdict(monkeypatch) -> None:
    assert "worse than an image" not in snapshot(monkeypatch, tuned=1.0)
    evaluation("pair16", "none", 11.0)  # the mean colour has 12 dB
    text = snapshot(monkeypatch, tuned=1.0)
    warning = "**Warning: The plain Gaussians of pair16 are worse than an image of the mean colour"
    assert warning in text.partition("## Means")[0]


def test_without_a_tuned_method_there_is_nothing_to_decide(monkeypatch) -> None:
    compare.main()
    monkeypatch.setattr(sys, "argv", ["decide"])
    decide.main()
    text = Path("metrics/decision.md").read_text()
    assert "nothing to decide" in text
    assert "base-post" in text


def test_noise_floor_stands_beside_the_gain(monkeypatch) -> None:
    text = snapshot(monkeypatch, tuned=1.0)
    assert "The noise of the seed was not measured: study.seeds is empty" in text
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["study"]["seeds"] = [1]
    yaml.dump(params, Path("params.yaml"))
    for scene, level in LEVELS.items():
        evaluation(repeat_name(scene, 1), "none", level + 0.2)
    average({"pair15": 20.9, "pair16": 22.9})
    compare.main()
    decide.main()
    text = layout.decision().read_text()
    assert "The plain splat's PSNR varies with the seed by 0.10 dB" in text
    assert "2 trainings): gains below 0.43 dB are none (95%, Student t)" in text
    assert "In PSNR (dB) tuned-post improves on none, beyond the interval" in text
    assert "In PSNR (dB) the difference of tuned-post to none-mean is none: below the noise" in text
    assert "noise floor: not measured" not in text
    assert "The noise of the seed was not measured" not in text


def test_first_lines_say_what_was_measured(monkeypatch) -> None:
    first = snapshot(monkeypatch, tuned=1.0).partition("## ")[0]
    assert "2 downstream scenes" in first
    assert "n = 2 views" in first
    assert "Fixer: the tiny fixer of this repository" in first
    assert "LPIPS was not measured" in first
    assert "noise floor: not measured" in first
    assert "strength: 1" in first


def test_empty_reserve_is_said(monkeypatch) -> None:
    assert "reserved_scenes" not in snapshot(monkeypatch, tuned=1.0)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["study"]["reserved_scenes"] = []
    yaml.dump(params, Path("params.yaml"))
    monkeypatch.setattr(sys, "argv", ["compare"])
    compare.main()
    decide.main()
    assert f"Note: {NO_RESERVE}." in layout.decision().read_text()
