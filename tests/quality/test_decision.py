"""Sentences of the decision follow from the numbers: their direction, and what is certain."""

import pytest

from stages.quality.decision import decision
from stages.quality.keys import MEASURES

CHOSEN = "tuned-post"


def said(metric: str, difference: float, low: float | None, high: float | None, won: int) -> str:
    """What the decision says of one measure's difference to the plain splat, over 3 scenes."""
    means = dict.fromkeys(MEASURES, 0.5) | {"scenes": 3}
    row = {
        "comparison": f"{CHOSEN}_vs_none",
        "scene": "mean",
        "metric": metric,
        "difference": difference,
        "low": low,
        "high": high,
        "won": won,
        "sign_flip_p": 0.25,
    }
    delta = {"study": {"chosen": CHOSEN, "verdict": "0" * 64}}
    text = decision("v0", "why", {"none": means, CHOSEN: means}, delta, [row], 0.95)
    return text.partition("## What the numbers say")[2].partition("## Next")[0].strip()


@pytest.mark.parametrize(
    ("metric", "difference", "low", "high", "won", "words"),
    [
        ("psnr", 0.3, 0.1, 0.5, 3, "PSNR (dB) tuned-post improves on none, beyond"),
        ("psnr", -0.3, -0.5, -0.1, 0, "PSNR (dB) tuned-post falls behind none, beyond"),
        ("psnr", 0.3, -0.1, 0.7, 2, "PSNR (dB) tuned-post improves on none, within"),
        ("lpips", -0.03, -0.05, -0.01, 3, "LPIPS tuned-post improves on none, beyond"),
        ("lpips", 0.03, 0.01, 0.05, 0, "LPIPS tuned-post falls behind none, beyond"),
        ("ssim", 0.0, -0.1, 0.1, 1, "SSIM tuned-post equals none, within"),
        ("ssim", 0.2, None, None, 3, "SSIM tuned-post improves on none, within"),
    ],
)
def test_findings_say_what_is_better_and_what_is_certain(
    metric: str, difference: float, low: float | None, high: float | None, won: int, words: str
) -> None:
    found = said(metric, difference, low, high, won)
    assert found.startswith(f"- In {words} the interval over scenes")
    assert found.endswith("on every scene.") == (won == 3)
