"""The decision snapshot: a comparison in words that follow from its numbers only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.quality.findings import DIFFERENCE, GAIN, LOSS, rule
from stages.quality.floor import verdict_warning
from stages.quality.frontier_text import frontier_lines, verdict_words
from stages.quality.keys import (
    CROPPED,
    FORMATS,
    FURTHER,
    MEASURES,
    NONE_MEAN,
    TITLES,
    quantity,
    titled,
)
from stages.quality.measured import measured_rows
from stages.quality.noise import floor_words
from stages.quality.paired_differences import MEAN
from stages.quality.statistics import least_p
from stages.quality.table import render_table
from stages.run.methods import PLAIN, Method
from stages.run.plurals import counted

_TITLES = {name: titled(name, "{} ({})") for name in (*MEASURES, *FURTHER, *CROPPED)}

SAME = "the same images"
_NO_ADVICE = "- None: no cause of error that these numbers can separate stands out."
_LIMITS = (
    " The noise floor is of one training's mean: for methods over the same splats a threshold by "
    "convention; for two independent trainings it would be \N{SQUARE ROOT}2 times as large. It "
    "holds the seed of the splats' training, not that of the tuning."
)

Numbers = Mapping[str, Any]


def decision(
    version: str,
    objective: str,
    summary: Mapping[str, Numbers],
    delta: Mapping[str, Any],
    confidence: float,
) -> str:
    """The snapshot as Markdown, from metrics/{summary,delta}.json.

    Args:
        version: Of the study.
        objective: Of the study.
        summary: Means by method, at full strength.
        delta: Differences, their names by the rule, and what was measured.
        confidence: Of the intervals.
    """
    study = delta["study"]
    subject, floor = study["subject"], delta.get("noise_floor")
    count = next(iter(summary.values()))["scenes"]
    lines = [f"# Decision snapshot, study {version}", "", objective, ""]
    below = study.get("below_mean_color")
    lines += [f"**Warning: {verdict_warning(below)}.**", ""] if below else []
    lines += [*verdict_lines(subject, delta), ""]
    lines += [f"- {name}: {text}" for name, text in measured_rows(delta)]
    lines += [f"- Leak guard: {guard_words(study)}"]
    lines += [f"- Note: {note}"] if (note := study.get("note")) else []
    scenes = counted(count, "downstream scene")
    lines += ["", f"## Means over {scenes}, fixed views as they are", ""]
    lines += [*_indented(_means(summary)), "", f"{_on_methods(summary, floor)}.", ""]
    if subject == PLAIN:
        return "\n".join(lines).rstrip() + "\n"
    strength = study["strength"]
    strengths = delta["frontier"]["strengths"]
    headline = {
        _label(reference, strengths, " at ", " = none"): of
        for reference, of in _comparisons(delta["headline"], subject).items()
    }
    shown = [(f"## {subject} at strength {strength:g}", headline)]
    if strength != 1:
        shown.append((f"## {subject} at full strength", _comparisons(delta, subject)))
    for title, found in shown:
        lines += [title, "", *_indented(_differences(found, count, confidence)), ""]
    lines += [
        f"{rule(floor)}. {_on_p(count)}{_LIMITS if floor else ''}",
        "",
        "## Over all strengths",
        "",
    ]
    lines += frontier_lines(subject, delta["frontier"], confidence)
    advice = list(_next(subject, summary, delta)) or [_NO_ADVICE]
    lines += ["", "## Next ablation", "", *advice]
    return "\n".join(lines) + "\n"


def headline_text(delta: Mapping[str, Any]) -> str:
    """The verdict and the noise floor for a terminal."""
    found = "\n".join(line for line in verdict_lines(delta["study"]["subject"], delta) if line)
    return f"{found.replace('**', '')}\n- Noise floor: {floor_words(delta.get('noise_floor'))}"


def verdict_lines(subject: str, delta: Mapping[str, Any]) -> Iterator[str]:
    """What was found of the subject, in Markdown: one item per reference."""
    if subject == PLAIN:
        yield "No fixer is judged: `study.subject` is none. Name the method to judge there."
        return
    strengths = delta["frontier"]["strengths"]
    yield f"**{subject} at strength {strengths[subject]:g}:**"
    yield ""
    for reference, found in _comparisons(delta["headline"], subject).items():
        is_same = strengths[subject] == strengths.get(reference, 0) == 0 and reference != NONE_MEAN
        text = f"- Against {_label(reference, strengths)}: "
        text += f"{SAME if is_same else _found(found[MEAN])}."
        if of_curves := delta["frontier"].get(f"{subject}_vs_{reference}"):
            words = verdict_words(subject, reference, of_curves["verdict"])
            text += f" {'At other' if is_same else 'Over all'} strengths: {words}."
        yield text
    if strengths[subject] == 0:
        yield ""
        yield (
            "Strength 0 is the raw render: on the internal-eval scenes no larger strength has a "
            "higher PSNR."
        )


def guard_words(study: Numbers) -> str:
    """What the leak guard found of the roles of the scenes, and the start of its verdict's hash.

    >>> guard_words({"verdict": "57a19af7d79cd3d1", "verdict_errors": 0})
    'the roles of the scenes passed (verdict `57a19af7d79c`)'
    """
    errors = study.get("verdict_errors", 0)
    found = f"refused, {counted(errors, 'error')}" if errors else "passed"
    return f"the roles of the scenes {found} (verdict `{study['verdict'][:12]}`)"


def _label(
    reference: str,
    strengths: Mapping[str, float],
    at: str = " at strength ",
    zero: str = " (the raw render, as none)",
) -> str:
    """A reference and its strength in the headline, if it has one; `zero` is added to that of 0.

    >>> _label("base-post", {"base-post": 0.5}), _label("base-post", {"base-post": 0.0})
    ('base-post at strength 0.5', 'base-post at strength 0 (the raw render, as none)')
    """
    if reference not in strengths:
        return reference
    raw = "" if strengths[reference] else zero
    return f"{reference}{at}{strengths[reference]:g}{raw}"


def _found(mean: Numbers) -> str:
    """Such as `gain in PSNR (+0.31 dB); no difference shown in SSIM (...)`."""
    by_word: dict[str, list[str]] = {}
    for name in _TITLES:
        if mean.get(name) is None:
            continue
        word, change = mean[f"{name}_is"], quantity(name, mean[name], "+")
        if word in (GAIN, LOSS, DIFFERENCE):
            by_word.setdefault(f"{word} in ", []).append(f"{TITLES[name]} ({change})")
        else:
            text = f"{TITLES[name]} ({change}: {word})"
            by_word.setdefault("no difference shown in ", []).append(text)
    return "; ".join(word + _listed(parts) for word, parts in by_word.items())


def _listed(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def _comparisons(deltas: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """Entries of the subject's comparisons, by reference."""
    start = f"{subject}_vs_"
    return {key.removeprefix(start): of for key, of in deltas.items() if key.startswith(start)}


def _on_methods(summary: Mapping[str, Numbers], floor: Numbers | None) -> str:
    plain = "none: the plain splat"
    if NONE_MEAN not in summary or not floor:
        return plain
    return f"{plain}; {NONE_MEAN}: the mean of its renders over {floor['trainings']} trainings"


def _means(summary: Mapping[str, Numbers]) -> str:
    every = summary.values()
    further = [name for name in FURTHER if all(name in row for row in every)]
    cropped = [name for name in CROPPED if any(row.get(name) is not None for row in every)]
    shown = [*MEASURES, *further, *cropped]
    rows = [["method", *(_TITLES[name] for name in shown)]]
    for method, row in summary.items():
        rows.append([method, *(_text(row[name], FORMATS[name]) for name in shown)])
    return render_table(rows)


def _differences(found: Mapping[str, Any], count: int, confidence: float) -> str:
    """A row for each reference and measure."""
    rows = [["against", "", "difference", f"{confidence:.0%} interval", "better on", "p", "is"]]
    for reference, deltas in found.items():
        mean = deltas[MEAN]
        for name in _TITLES:
            if mean.get(name) is None:
                continue
            form = f"+{FORMATS[name]}"
            ends = [mean[f"{name}_{end}"] for end in ("t_low", "t_high")]
            interval = "none" if None in ends else f"[{ends[0]:{form}}, {ends[1]:{form}}]"
            rows.append(
                [
                    reference,
                    _TITLES[name],
                    format(mean[name], form),
                    interval,
                    f"{mean[f'{name}_scenes_improved']} of {count}",
                    "-" if count == 1 else f"{mean[f'{name}_sign_flip_p']:.3g}",
                    mean[f"{name}_is"],
                ]
            )
    return render_table(rows)


def _on_p(count: int) -> str:
    if count == 1:
        return "One scene has neither an interval nor a test: its views are not independent."
    return (
        "Intervals are Student's t over scenes; p is of the exact sign-flip test over scenes, "
        f"which with {count} scenes is at least {least_p(count):.3g}. Neither is corrected for the "
        "number of comparisons."
    )


def _next(subject: str, summary: Mapping[str, Numbers], delta: Mapping[str, Any]) -> Iterator[str]:
    """What to vary next: the largest causes of error that the numbers can separate."""
    full = _comparisons(delta, subject)
    base = Method.parse(subject).untuned
    over_none = full[PLAIN][MEAN]["psnr"] if PLAIN in full else None
    over_base = full[base][MEAN]["psnr"] if base in full else None
    aligned, calibrated = summary[subject].get("psnr_aligned"), summary[subject]["psnr"]
    if over_base is not None and over_base <= 0:
        yield (
            f"- At full strength tuning did not raise PSNR over {base} ({over_base:+.2f} dB): more "
            "in-domain data first (`study.tuning_scenes`, `pairs.every`, `pairs.leave_out`), then "
            "`tune.steps`."
        )
    if over_none is not None and over_none <= 0:
        yield (
            f"- At full strength {subject} lowers PSNR ({over_none:+.2f} dB). Try "
            "`tune.losses.lpips` lower, and `distill` rather than `post`."
        )
    if aligned is not None and aligned - calibrated > 0.5:
        yield (
            f"- Target poses fitted to the photographs give {aligned - calibrated:.2f} dB more "
            "than unfitted ones, from errors of the poses and of the Gaussians: "
            "`pairs.poses=given` shows whether pose errors in the samples harm the tuning."
        )
    if delta["study"].get("measured", {}).get("reference_counts") is not False:
        yield (
            "- Reference views: `python -m stages.ablate "
            "difix.reference_from=nearest,overlap,previous`, and "
            "`pairs.reference.strategy=same_time,temporal,mixed` for the samples alone."
        )
    spread = [of["psnr"] for scene, of in full.get(PLAIN, {}).items() if scene != MEAN]
    if len(spread) > 1:
        yield (
            f"- At full strength differences to none vary between scenes by "
            f"{max(spread) - min(spread):.2f} dB of PSNR: more downstream scenes narrow the "
            "intervals."
        )


def _indented(table: str) -> Iterator[str]:
    yield from ("    " + line.rstrip() for line in table.splitlines())


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
