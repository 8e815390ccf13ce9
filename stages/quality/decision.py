"""The decision snapshot: a comparison in words that follow from its numbers only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.quality.floor import verdict_warning
from stages.quality.frontier_text import frontier_lines
from stages.quality.keys import FORMATS, MEASURES, better, titled
from stages.quality.measured import measured_sentences
from stages.quality.noise import below_noise, noise_lines
from stages.quality.paired_differences import MEAN
from stages.quality.statistics import least_p
from stages.quality.table import render_table
from stages.run.methods import Method

_TITLES = {name: titled(name, "{} ({})") for name in MEASURES}

Numbers = Mapping[str, Any]


def decision(
    version: str,
    objective: str,
    summary: Mapping[str, Numbers],
    delta: Mapping[str, Any],
    table: Sequence[Numbers],
    confidence: float,
) -> str:
    """The snapshot as Markdown, from metrics/{summary,delta}.json and the table of differences.

    Args:
        version: Of the study.
        objective: Of the study.
        summary: Means by method.
        delta: Differences; `delta["study"]` names the method chosen on the internal-eval scenes.
        table: Rows of `delta_table`.
        confidence: Of the intervals.
    """
    chosen, verdict = delta["study"]["chosen"], delta["study"]["verdict"]
    count = next(iter(summary.values()))["scenes"]
    lines = [f"# Decision snapshot, study {version}", "", objective, ""]
    lines += [measured_sentences(delta), ""] if delta["study"].get("measured") else []
    lines += [f"Leak guard: verdict `{verdict[:12]}`.", ""]
    lines += [f"Note: {note}.", ""] if (note := delta["study"].get("note")) else []
    below = delta["study"].get("below_mean_color")
    lines += [f"**Warning: {verdict_warning(below)}.**", ""] if below else []
    lines += [f"## Means over {count} downstream scenes", "", *_means(summary), ""]
    if chosen is None:
        lines += ["No tuned method was evaluated on the internal-eval scenes: nothing to decide."]
        return "\n".join(lines) + "\n"
    lines += [
        f"## {chosen}",
        "",
        "Of the tuned methods it has the highest PSNR on the internal-eval scenes; the downstream "
        "scenes had no part in the choice.",
        "",
    ]
    means = [row for row in table if row["scene"] == MEAN and row["metric"] in MEASURES]
    deltas = [row for row in means if row["comparison"].startswith(f"{chosen}_vs_")]
    lines += [f"- {_sentence(row, count, confidence)}" for row in deltas]
    floor = delta.get("noise_floor")
    lines += noise_lines(floor, confidence)
    if frontier := delta.get("frontier"):
        lines += ["", "## At equal SSIM and PSNR", ""]
        lines += frontier_lines(chosen, frontier, floor or {}, confidence)
    lines += ["", "## What the numbers say", "", *_findings(chosen, deltas, count, floor)]
    lines += ["", "## Next ablation", "", *_next(chosen, summary, deltas, table)]
    return "\n".join(lines) + "\n"


def _means(summary: Mapping[str, Numbers]) -> Iterator[str]:
    rows = [["method", *_TITLES.values()]]
    for method, row in summary.items():
        rows.append([method, *(_text(row[name], FORMATS[name]) for name in MEASURES)])
    yield from ("    " + line for line in render_table(rows).splitlines())


def _sentence(row: Numbers, count: int, confidence: float) -> str:
    """Such as `PSNR against none: +0.31 dB [-0.10, 0.72], better on 4 of 4 scenes (p 0.125)`."""
    form, name = FORMATS[row["metric"]], _TITLES[row["metric"]]
    against = row["comparison"].partition("_vs_")[2]
    return (
        f"{name} against {against}: {row['difference']:+{form}} "
        f"[{_text(row['low'], form)}, {_text(row['high'], form)}] ({confidence:.0%}, Student t "
        f"over scenes), better on {row['won']:g} of {count} scenes (sign-flip p "
        f"{row['sign_flip_p']:.3g}; the smallest possible with {count} scenes is "
        f"{least_p(count):.3g})"
    )


def _findings(
    chosen: str, deltas: Sequence[Numbers], count: int, floor: Numbers | None
) -> Iterator[str]:
    for row in deltas:
        against = row["comparison"].partition("_vs_")[2]
        if below_noise(row["metric"], row["difference"], floor):
            yield (
                f"- In {_TITLES[row['metric']]} the difference of {chosen} to {against} is none: "
                "below the noise of the seed."
            )
            continue
        gain = row["difference"] * better(row["metric"])
        ends = [row["low"], row["high"]]
        sure = None not in ends and (min(ends) > 0 or max(ends) < 0)
        what = "improves on" if gain > 0 else "falls behind" if gain < 0 else "equals"
        how = "beyond the interval over scenes" if sure else "within the interval over scenes"
        every = ", on every scene" if row["won"] == count else ""
        yield f"- In {_TITLES[row['metric']]} {chosen} {what} {against}, {how}{every}."


def _next(
    chosen: str, summary: Mapping[str, Numbers], deltas: Sequence[Numbers], table: Sequence[Numbers]
) -> Iterator[str]:
    """What to vary next: the largest causes of error that the numbers can separate."""
    gains = {
        (row["comparison"].partition("_vs_")[2], row["metric"]): row["difference"] for row in deltas
    }
    base = Method.parse(chosen).untuned
    over_none, over_base = gains.get(("none", "psnr")), gains.get((base, "psnr"))
    aligned, calibrated = summary[chosen].get("psnr_aligned"), summary[chosen]["psnr"]
    if over_base is not None and over_base <= 0:
        yield (
            f"- Tuning did not improve on {base} ({over_base:+.2f} dB): more in-domain data first "
            "(`study.tuning_scenes`, `pairs.every`, `pairs.leave_out`), then `tune.steps`."
        )
    if over_none is not None and over_none <= 0:
        yield (
            f"- {chosen} lowers PSNR ({over_none:+.2f} dB): the fixer changes what was correct. "
            "Try `tune.losses.lpips` lower, and `distill` rather than `post`."
        )
    if aligned is not None and aligned - calibrated > 0.5:
        yield (
            f"- {aligned - calibrated:.2f} dB separate calibrated from aligned target poses: "
            "`pairs.poses=given` shows whether pose errors in the samples harm the tuning."
        )
    yield (
        "- Reference views: `python -m stages.ablate difix.reference_from=nearest,overlap`, and "
        "`pairs.reference.strategy=same_time,temporal,mixed` for the samples alone."
    )
    spread = [
        row["difference"]
        for row in table
        if row["comparison"] == f"{chosen}_vs_none"
        and row["metric"] == "psnr"
        and row["scene"] != MEAN
    ]
    if len(spread) > 1:
        yield (
            f"- Gains differ between scenes by {max(spread) - min(spread):.2f} dB of PSNR: more "
            "downstream scenes would narrow the interval most."
        )


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
