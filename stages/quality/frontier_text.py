"""The frontier in words: for metrics/decision.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.quality.findings import DIFFERENCE
from stages.quality.frontier import (
    APART,
    DOMINATED,
    DOMINATES,
    GAINS_IN_PART,
    LEVELS,
    LOSES_IN_PART,
    TRADES,
    UNMEASURED,
    VERDICTS,
)
from stages.quality.keys import FORMATS, TITLES, quantity
from stages.quality.paired_differences import MEAN

_DEFINITION = (
    "LPIPS at equal SSIM (PSNR) is the lowest of all strengths with at least that SSIM (PSNR), "
    "averaged over the levels that both methods reach, never extrapolated. Where one only rises "
    "from the raw render's level and the other only falls, that level alone is common. The "
    "strength is free here in each scene; above it is one, chosen elsewhere."
)
_VERDICTS = (
    "Dominates: gains at equal SSIM and at equal PSNR. Is dominated: losses at both. Trades: a "
    "gain and a loss, also in the highest SSIM and PSNR of any strength. In part: gains, or "
    "losses, in some only. Every curve begins at the raw render, so losses against none are of "
    "full strength."
)
_LINKS = {
    DOMINATES: "",
    DOMINATED: " by",
    TRADES: " with",
    GAINS_IN_PART: " against",
    LOSES_IN_PART: " against",
}


def frontier_lines(subject: str, frontier: Mapping[str, Any], confidence: float) -> Iterator[str]:
    """Items on the subject's verdict against each reference, then how to read them.

    Args:
        subject: The method.
        frontier: `frontier` of metrics/delta.json.
        confidence: Of the intervals.
    """
    of_subject = {key: of for key, of in frontier.items() if key.startswith(f"{subject}_vs_")}
    for key, found in of_subject.items():
        yield _sentence(subject, key.partition("_vs_")[2], found)
    if all(found["verdict"] == UNMEASURED for found in of_subject.values()):
        return
    yield ""
    yield f"{_DEFINITION} In brackets: {confidence:.0%} intervals over scenes."
    if any(found["verdict"] in VERDICTS for found in of_subject.values()):
        yield ""
        yield _VERDICTS


def verdict_words(subject: str, reference: str, verdict: str) -> str:
    """A verdict as the end of a sentence.

    >>> verdict_words("tuned-post", "none", "trades")
    'tuned-post **trades** with none'
    >>> verdict_words("tuned-post", "none", "no common range")
    '**no common range**'
    """
    if verdict == DIFFERENCE:
        return "a **difference**; without a noise floor it has no verdict"
    if verdict not in VERDICTS:
        return f"**{verdict}**"
    return f"{subject} **{verdict}**{_LINKS[verdict]} {reference}"


def _sentence(subject: str, reference: str, found: Mapping[str, Any]) -> str:
    """Such as `Against none: x **dominates** none. LPIPS at equal SSIM -0.01 [-0.02, -0.01]`."""
    words = verdict_words(subject, reference, found["verdict"])
    if found["verdict"] == UNMEASURED:
        return f"- Against {reference}: {words}."
    mean, form, parts = found[MEAN], FORMATS["lpips"], []
    for level in LEVELS:
        name = f"lpips_at_{level}"
        if mean[name] is None:
            parts.append(f"at equal {TITLES[level]}: {APART}")
            continue
        error = mean[f"{name}_error"]
        stated = "interpolated by unknown error" if error is None else f"interpolated ±{error:.5f}"
        ends = [mean[f"{name}_t_low"], mean[f"{name}_t_high"]]
        interval = "" if None in ends else f" [{ends[0]:+{form}}, {ends[1]:+{form}}]"
        levels = _levels(level, found)
        parts.append(f"at equal {TITLES[level]} {mean[name]:+{form}}{interval}, {stated}{levels}")
    return f"- Against {reference}: {words}. LPIPS {'; '.join(parts)}."


def _levels(level: str, found: Mapping[str, Any]) -> str:
    """Over what levels of PSNR or SSIM methods were compared; empty where it is not known."""
    mean, scenes = found[MEAN], len(found) - 2  # beside the verdict and the mean
    if f"common_{level}" not in mean:
        return ""
    wider = mean[f"common_{level}_scenes"]
    if not wider:
        return ", at the raw render's level alone"
    width = quantity(level, mean[f"common_{level}"])
    alone = f", in {scenes - wider} of {scenes} scenes the raw render's alone"
    return f", over levels {width} wide in the mean{alone if wider < scenes else ''}"
