"""The decision in a few lines for a terminal, with what was measured, what is missing, and what
to do next."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from stages.quality.findings import DIFFERENCE, GAIN, LOSS
from stages.quality.keys import FORMATS, MEASURES, titled
from stages.quality.measured import measured_rows
from stages.quality.paired_differences import MEAN
from stages.quality.table import render_table
from stages.run.methods import PLAIN

WIDTH = 118
_NOT_SHOWN = "not shown"  # in a column of the table
_MEASURED = ("Data", "Sample", "Fixer", "Tuning", "Missing")
NEXT = (
    ("python -m stages.view {scene}", "a scene in the browser"),
    ("dvc exp run -S study.subject=none", "the same with another value"),
    ("dvc exp show --only-changed --drop data --drop metrics", "both side by side"),
)

Numbers = Mapping[str, Any]


def brief(headline: Numbers, delta: Numbers, scene: str, device: str) -> str:
    """At most WIDTH columns, from metrics/{headline,delta}.json.

    Args:
        headline: Means of the study's subject at its strength.
        delta: Differences, what they are, and what was measured.
        scene: One of the downstream scenes, for the commands.
        device: What the stages run on here.
    """
    rows = [*_measured(delta, device), *(("Missing", text) for text in _missing(delta))]
    lines = [_table(headline, delta), ""]
    for name, text in rows:
        lines += textwrap.wrap(f"{name:9}{text}", WIDTH, subsequent_indent=" " * 9)
    commands = [(command.format(scene=scene), what) for command, what in NEXT]
    width = max(len(command) for command, _ in commands)
    lines += ["", "All of it: metrics/decision.md; on one page: metrics/report/index.html. Next:"]
    return "\n".join(lines + [f"  {command:{width}}  # {what}" for command, what in commands])


def _table(headline: Numbers, delta: Numbers) -> str:
    """The subject's means, its differences to each reference, and the noise floor."""
    study, floor = delta["study"], delta.get("noise_floor")
    subject, start = study["subject"], f"{study['subject']}_vs_"
    names = [name for name in MEASURES if headline.get(name) is not None]
    at = "" if subject == PLAIN else f" at strength {study['strength']:g}"
    rows = [["", *(_cell(titled(name, "{} ({})")) for name in names)]]
    rows += [[f"{subject}{at}", *(_cell(f"{headline[name]:{FORMATS[name]}}") for name in names)]]
    for key, found in delta.get("headline", {}).items():
        mean = found[MEAN]
        cells = [
            _cell("-")
            if mean.get(name) is None
            else _cell(f"{mean[name]:+{FORMATS[name]}}", _word(mean[f"{name}_is"]))
            for name in names
        ]
        rows.append([f"  against {key.removeprefix(start)}", *cells])
    if floor:
        least = [(name, floor[f"{name}_least"]) for name in names]
        cells = [
            _cell("-" if value is None else f"{value:{FORMATS[name]}}") for name, value in least
        ]
        rows.append(["  noise floor", *cells])
    return "\n".join(line.rstrip() for line in render_table(rows).splitlines())


def _cell(value: str, word: str = "") -> str:
    return f"{value} {word:{len(DIFFERENCE)}}"


def _word(found: str) -> str:
    return found if found in (GAIN, LOSS, DIFFERENCE) else _NOT_SHOWN


def _measured(delta: Numbers, device: str) -> Iterator[tuple[str, str]]:
    for name, text in measured_rows(delta):
        if name in _MEASURED:
            yield name, f"{text}; on {device}" if name == "Data" else text


def _missing(delta: Numbers) -> Iterator[str]:
    """What a reader may expect and this study has not."""
    facts = delta["study"].get("measured", {})
    if facts and facts.get("lpips", "") in ("", "none") and not facts.get("missing"):
        yield (
            "LPIPS, whose backbone weights are not here: it was not measured, and a fixer that is "
            "tuned here is tuned without it, so every number of a tuned method differs from the "
            "README's. `python -m stages.doctor` says where the weights go."
        )
    if not delta.get("noise_floor"):
        yield "the noise floor (`study.seeds` is empty): without it nothing is a gain or a loss"
    if "demo" in facts.get("data", ""):
        yield "real images: the demo shows how the study runs, not what it will find on yours"
