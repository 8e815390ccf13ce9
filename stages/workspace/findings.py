"""One line of the doctor: ok, warn or fail, what was found, what mends it."""

from collections.abc import Sequence
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    name: str
    status: str
    found: str
    fix: str = ""


def worst(findings: list[Finding]) -> str:
    """The worst status among findings."""
    return max((one.status for one in findings), key=(OK, WARN, FAIL).index, default=OK)


def told(findings: list[Finding]) -> str:
    """A line a finding, and below it what mends it."""
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{one.status:5}{one.name:{width}}  {one.found}")
        lines += [f"{'':{width + 7}}fix: {one.fix}"] if one.fix else []
    return "\n".join(lines)


def few(names: Sequence[str]) -> str:
    """The first names of many."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
