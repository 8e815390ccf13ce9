"""The frontier in words: for metrics/decision.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.quality.frontier import LEVELS, UNMEASURED, UNSHOWN
from stages.quality.keys import FORMATS, TITLES
from stages.quality.paired_differences import MEAN


def frontier_lines(
    chosen: str, frontier: Mapping[str, Any], floor: Mapping[str, Any], confidence: float
) -> Iterator[str]:
    """Paragraphs on the chosen method: its strength, and its verdict against each reference.

    Args:
        chosen: The method.
        frontier: `frontier` of metrics/delta.json.
        floor: `noise_floor` of it; empty where it was not measured.
        confidence: Of the intervals.
    """
    strength = frontier["strengths"][chosen]
    yield (
        f"Strength {strength:g} has its highest PSNR on the internal-eval scenes (0: the raw "
        "renders, 1: the fixed ones, between them blends). metrics/headline.json is of "
        f"{_subject(frontier)}; all other means and differences here are of full strength."
    )
    yield ""
    for key, found in frontier.items():
        if key.startswith(f"{chosen}_vs_"):
            yield _sentence(chosen, key.partition("_vs_")[2], found, confidence)
    lpips = floor.get("lpips")
    noise = (
        "The noise floor was not measured (`study.seeds`)."
        if lpips is None
        else f"The noise floor of LPIPS is {lpips:{FORMATS['lpips']}}."
    )
    yield ""
    yield (
        "At equal SSIM (PSNR): the best LPIPS of any strength whose SSIM (PSNR) is at least that "
        "level, mean over the levels that both reach. A difference counts when the interval "
        "excludes zero and the mean exceeds the error of interpolation and the noise floor. "
        f"{noise}"
    )


def _subject(frontier: Mapping[str, Any]) -> str:
    subject = frontier["subject"]
    return f"{subject} at strength {frontier['strengths'].get(subject, 0.0):g}"


def _sentence(chosen: str, reference: str, found: Mapping[str, Any], confidence: float) -> str:
    """Such as `Against none: **dominates**. LPIPS at equal SSIM -0.0120 [-0.0150, -0.0090]`."""
    if found["verdict"] == UNMEASURED:
        return f"- Against {reference}: no verdict, because {UNMEASURED}."
    mean, form, parts = found[MEAN], FORMATS["lpips"], []
    for level in LEVELS:
        name = f"lpips_at_{level}"
        error = mean[f"{name}_error"]
        stated = "error not measured" if error is None else f"interpolated within {error:{form}}"
        ends = [mean[f"{name}_t_low"], mean[f"{name}_t_high"]]
        low, high = ("-" if end is None else format(end, f"+{form}") for end in ends)
        parts.append(
            f"at equal {TITLES[level]} {mean[name]:+{form}} [{low}, {high}] ({stated}; at the "
            f"level of none {mean[f'{name}_of_none']:+{form}})"
        )
    who = "" if found["verdict"] == UNSHOWN else f"{chosen} "
    return (
        f"- Against {reference}: {who}**{found['verdict']}**. LPIPS {'; '.join(parts)}; "
        f"{confidence:.0%} intervals of Student's t over scenes."
    )
