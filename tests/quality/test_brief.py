"""The decision for a terminal."""

from typing import Any

from stages.quality.brief import WIDTH, brief
from stages.quality.keys import MEASURES

SUBJECT = "tuned-post"
HEADLINE = {"psnr": 21.52, "ssim": 0.6456, "lpips": 0.1552}
FACTS = {
    "data": "embedded demo: ray-traced people",
    "size": "192x256",
    "scenes": 4,
    "timestamps": "2",
    "target_cameras": "2",
    "views": 16,
    "lpips": "alex 889a9ed0",
    "protocol": "192x256, 4 views, lpips alex",
    "fixer": "the small fixer of this repository",
    "tuned": "24 pairs, 100 steps, " + "on whole images of 192x256 px, " * 5 + "loss 1 L2",
}


def shown(facts: dict[str, Any] | None = None, floor: bool = True, **headline: Any) -> str:
    means = HEADLINE | headline
    words = dict(zip(MEASURES, ("the interval includes zero", "loss", "gain"), strict=True))
    mean: dict[str, Any] = {"psnr": 0.18, "ssim": -0.0051, "lpips": -0.0331}
    mean |= {f"{name}_is": word for name, word in words.items()}
    mean = {key: None if means[key.partition("_")[0]] is None else of for key, of in mean.items()}
    delta = {
        "study": {"subject": SUBJECT, "strength": 0.625, "measured": FACTS | (facts or {})},
        "headline": {f"{SUBJECT}_vs_{one}": {"mean": mean} for one in ("none", "base-post")},
    }
    if floor:
        least = {f"{name}_least": 0.004 for name in MEASURES}
        delta["noise_floor"] = least | {"trainings": 2, "confidence": 0.95}
    return brief(means, delta, "hi4d_pair15_fight", "the CPU")


def test_lines_fit_and_end_with_three_commands() -> None:
    lines = shown().splitlines()
    assert max(map(len, lines)) <= WIDTH < 120
    assert [line.split()[0] for line in lines[-3:]] == ["python", "dvc", "dvc"]
    assert "python -m stages.view hi4d_pair15_fight " in lines[-3]


def test_table_has_the_subject_its_references_and_the_noise_floor() -> None:
    table = shown().partition("\n\n")[0].splitlines()
    assert table[1].split() == [SUBJECT, "at", "strength", "0.625", "21.52", "0.6456", "0.1552"]
    none = "against none +0.18 not shown -0.0051 loss -0.0331 gain"
    assert table[2].split() == none.split()
    assert [line.split()[1] for line in table[3:]] == ["base-post", "floor"]


def test_what_was_measured_is_said() -> None:
    text = shown()
    assert "Data     embedded demo: ray-traced people, 192x256 px; on the CPU\n" in text
    assert "Fixer    the small fixer of this repository" in text
    assert "Missing  real images" in text
    assert "LPIPS, whose" not in text


def test_missing_lpips_noise_floor_and_real_data_are_said() -> None:
    text = shown({"lpips": "none", "data": "Hi4D"}, floor=False, lpips=None)
    assert "LPIPS" not in text.partition("\n\n")[0]
    assert "Missing  LPIPS, whose backbone weights are not here" in text
    assert "Missing  the noise floor" in text
    assert "real images" not in text


def test_study_of_the_plain_splat_has_its_means_alone() -> None:
    delta = {"study": {"subject": "none", "measured": FACTS}}
    table = brief(HEADLINE, delta, "s", "the CPU").partition("\n\n")[0].splitlines()
    assert table[1].split() == ["none", "21.52", "0.6456", "0.1552"]
    assert len(table) == 2
