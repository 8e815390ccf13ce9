"""The table of an ablation: differences, noise, and what cannot be compared."""

import pytest

from stages.quality.ablation import (
    ablation,
    ablation_table,
    arm_deltas,
    largest_repeat_shift,
)
from stages.quality.comparison import Evaluation, Evaluations
from stages.quality.config import CompareConfig
from stages.quality.keys import MEASURED, MEASURES
from stages.quality.statistics import column_means

SCENES = ("a", "b")
VIEWS = [(time, camera) for time in ("1", "2", "3") for camera in ("28", "64")]


def evaluations(psnr: float, lpips: float | None = 0.2, protocol: str = "p") -> Evaluations:
    """Every scene by tuned-post, equal views."""
    empty = dict.fromkeys(MEASURED)
    values = empty | {"psnr": psnr, "ssim": 0.7, "lpips": lpips}
    means = values | {"mean_color_psnr": 15.0, "views": len(VIEWS), "protocol": protocol}
    found = {
        (scene, "tuned-post"): Evaluation(
            scene,
            "tuned-post",
            means | {"psnr": psnr + k},
            {view: values | {"psnr": psnr + k} for view in VIEWS},
        )
        for k, scene in enumerate(SCENES)
    }
    return Evaluations(found)


def table_of(**arms: Evaluations):
    return arm_deltas(evaluations(20.0), arms, SCENES, "tuned-post", CompareConfig())


def means_of(default: Evaluations) -> dict:
    return column_means([default.of(scene, "tuned-post").means for scene in SCENES], MEASURES)


def test_differences_are_paired_with_the_default() -> None:
    rows, reasons = table_of(better=evaluations(20.5, 0.15), same=evaluations(20.0))
    means = {(row["comparison"], row["metric"]): row for row in rows if row["scene"] == "mean"}
    assert means["better", "psnr"]["difference"] == 0.5
    assert means["better", "psnr"]["won"] == 2
    assert means["better", "lpips"]["difference"] == -0.05
    assert means["better", "lpips"]["won"] == 2
    assert means["same", "psnr"]["won"] == 0
    assert reasons == {}


def test_noise_is_the_largest_change_of_a_repeat() -> None:
    rows, _ = table_of(arm=evaluations(21.0), one=evaluations(19.9), two=evaluations(20.3))
    assert largest_repeat_shift(rows, ["one", "two"])["psnr"] == pytest.approx(0.3)
    assert largest_repeat_shift(rows, []) == {}


def test_only_what_exceeds_the_noise_is_starred() -> None:
    rows, reasons = table_of(
        large=evaluations(20.5), small=evaluations(19.8), repeat=evaluations(20.3)
    )
    default = means_of(evaluations(20.0))
    assert default["psnr"] == 20.5
    text = ablation_table(rows, default, ["large", "small"], ["repeat"], reasons, 2)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "+0.500*" in lines["large"]
    assert "-0.200 " in lines["small"]
    assert "*" not in lines["repeat"]
    assert "0.300" in lines["largest of the repeats"]
    assert "20.500" in lines["default"]


def test_arm_that_was_measured_otherwise_is_not_compared() -> None:
    rows, reasons = table_of(larger=evaluations(25.0, protocol="384x512"))
    assert rows == []
    text = ablation_table(rows, dict.fromkeys(MEASURES, 1.0), ["larger"], [], reasons, 2)
    assert "larger: not compared: 'p' and '384x512'" in text


def test_number_that_was_not_measured_is_a_dash() -> None:
    rows, reasons = arm_deltas(
        evaluations(20.0, None),
        {"arm": evaluations(21.0, None)},
        SCENES,
        "tuned-post",
        CompareConfig(),
    )
    default = means_of(evaluations(20.0, None))
    assert default["lpips"] is None
    line = ablation_table(rows, default, ["arm"], [], reasons, 2).splitlines()[-1]
    assert line.split()[-1] == "-"


def test_scenes_to_choose_by_and_to_report_are_kept_apart() -> None:
    roles = {"to choose by": ["a"], "to report": ["b", "not evaluated"], "of no use": []}
    arms = {"arm": evaluations(20.5), "repeat": evaluations(20.1)}
    text = ablation(
        evaluations(20.0), arms, ["arm"], ["repeat"], roles, "tuned-post", CompareConfig()
    )
    first, second, note = text.split("\n\n")
    assert first.startswith("tuned-post on scenes to choose by: a\n")
    assert "20.000" in first
    assert second.startswith("tuned-post on scenes to report: b\n")
    assert "21.000" in second
    assert "+0.500*" in first
    assert note.startswith("* more than the repeats with other seeds")
