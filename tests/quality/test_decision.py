"""Sentences of the decision follow from delta.json: what was found, and at which strength."""

import re
from typing import Any

import pytest

from stages.quality.decision import decision
from stages.quality.keys import CROPPED, MEASURES

SUBJECT = "tuned-post"
FLOOR = {"psnr_least": 0.1, "ssim_least": 0.01, "lpips_least": 0.004}

FACTS = {"scenes": 3, "timestamps": "2", "target_cameras": "1", "views": 6, "protocol": "64x64"}


def mean(psnr: float, word: str) -> dict[str, Any]:
    """A mean difference of PSNR alone, over 3 scenes."""
    keys = ("t_low", "t_high", "scenes_improved", "sign_flip_p", "is")
    empty = dict.fromkeys(MEASURES) | {f"{n}_{k}": None for n in MEASURES for k in keys}
    measured = {"psnr": psnr, "psnr_is": word, "psnr_scenes_improved": 2, "psnr_sign_flip_p": 0.25}
    return empty | measured


def people(psnr: float, word: str) -> dict[str, Any]:
    """The same of the people, as it stands beside `mean`."""
    return {f"crop_{name}": value for name, value in mean(psnr, word).items()}


def text_of(
    psnr: float,
    word: str,
    strength: float = 0.5,
    verdict: str = "trades",
    of_people: dict[str, Any] | None = None,
    measured: dict[str, Any] | None = None,
    scenes: int = 3,
    at_full: float = -0.7,
) -> str:
    means = dict.fromkeys(MEASURES, 0.5) | {"scenes": scenes}
    means |= dict.fromkeys(CROPPED, 0.25 if of_people else None)
    study = {"subject": SUBJECT, "strength": strength, "strength_chosen_on": "in"}
    study |= {"measured": FACTS | measured} if measured else {}
    key = f"{SUBJECT}_vs_none"
    delta = {
        "study": study | {"verdict": "0" * 64},
        "noise_floor": FLOOR | {"trainings": 2, "confidence": 0.95},
        "frontier": {
            "strengths": {SUBJECT: strength},
            key: {"verdict": "LPIPS was not measured"} if verdict == "" else _curves(verdict),
        },
        "headline": {key: {"mean": mean(psnr, word) | (of_people or {}), "a": {"psnr": psnr}}},
        key: {"mean": mean(at_full, "loss"), "a": {"psnr": at_full}},
    }
    return decision("v0", "why", {"none": means, SUBJECT: means}, delta, 0.95)


def _curves(verdict: str) -> dict[str, Any]:
    values = {"lpips_at_ssim": None, "lpips_at_psnr": -0.01}
    ends = {f"lpips_at_psnr_t_{end}": -0.01 for end in ("low", "high")}
    return {"verdict": verdict, "mean": values | ends | {"lpips_at_psnr_error": 0.00004}}


@pytest.mark.parametrize(
    ("psnr", "word", "said"),
    [
        (0.3, "gain", "gain in PSNR (+0.30 dB)."),
        (-0.3, "loss", "loss in PSNR (-0.30 dB)."),
        (0.3, "difference", "difference in PSNR (+0.30 dB)."),
        (
            0.05,
            "below the noise floor",
            "no difference shown in PSNR (+0.05 dB: below the noise floor).",
        ),
    ],
)
def test_verdict_stands_first_and_is_of_the_chosen_strength(
    psnr: float, word: str, said: str
) -> None:
    first = text_of(psnr, word).partition("## ")[0]
    assert f"**{SUBJECT} at strength 0.5:**" in first
    assert f"- Against none: {said} Over all strengths: {SUBJECT} **trades** with none." in first


def test_people_are_judged_beside_whole_images() -> None:
    text = text_of(0.3, "gain", of_people=people(-0.2, "loss"))
    first, _, rest = text.partition("## ")
    assert "gain in PSNR (+0.30 dB); loss in PSNR of people (-0.20 dB)." in first
    means, _, differences = rest.partition("## ")
    assert "0.25" in means
    assert re.search(r"none +PSNR of people \(dB\) +-0\.20 .* loss", differences)
    assert "people" not in text_of(0.3, "gain"), "without masks"


def test_full_strength_is_a_table_of_its_own_unless_it_is_the_chosen_one() -> None:
    half, full = text_of(0.3, "gain"), text_of(-0.7, "loss", strength=1.0)
    assert half.index(f"## {SUBJECT} at strength 0.5") < half.index("at full strength\n")
    assert "-0.70" in half.partition("at full strength\n")[2]
    assert f"## {SUBJECT} at strength 1\n" in full
    assert "at full strength\n" not in full


def test_strength_of_zero_is_called_the_raw_render() -> None:
    assert "Strength 0 is the raw render" in text_of(0.0, "below the noise floor", strength=0.0)
    assert "Strength 0 is the raw render" not in text_of(0.0, "below the noise floor")


def test_curves_without_a_common_range_have_no_number() -> None:
    text = text_of(0.3, "gain", verdict="no common range")
    assert (
        "**no common range**. LPIPS at equal SSIM: no common range; at equal PSNR -0.0100" in text
    )
    assert "interpolated ±0.00004" in text
    assert "LPIPS was not measured" in text_of(0.3, "gain", verdict="")


def test_missing_weights_stand_before_all_other_facts() -> None:
    first = text_of(0.3, "gain", measured={"missing": "no vgg", "data": "Hi4D"}).partition("## ")[0]
    assert first.index("- Missing: no vgg\n") < first.index("- Data: Hi4D")
    assert "Missing" not in text_of(0.3, "gain", measured={"data": "Hi4D"})


def test_references_are_varied_only_where_they_may_count() -> None:
    used = text_of(0.3, "gain", measured={"reference_counts": True})
    ignored = text_of(0.3, "gain", measured={"reference_counts": False})
    assert "difix.reference_from=" in text_of(0.3, "gain"), "not recorded"
    assert "difix.reference_from=" in used
    assert "- Reference:" not in used
    assert "difix.reference_from=" not in ignored
    assert "- Reference: without effect" in ignored.partition("## ")[0]


def test_nothing_is_advised_where_nothing_can_matter() -> None:
    text = text_of(0.3, "gain", measured={"reference_counts": False}, at_full=0.7)
    assert text.partition("## Next ablation\n\n")[2].startswith("- None: ")
    advised = text_of(0.3, "gain", measured={"reference_counts": False})
    assert "- None: " not in advised.partition("## Next ablation")[2]


def test_one_scene_is_counted_as_one() -> None:
    assert "## Means over 1 downstream scene, " in text_of(0.3, "difference", scenes=1)
    assert "## Means over 3 downstream scenes, " in text_of(0.3, "gain")


def test_leak_guard_says_whether_it_passed() -> None:
    assert "- Leak guard: the roles of the scenes passed (verdict `000000000000`)" in text_of(
        0.3, "gain"
    )
