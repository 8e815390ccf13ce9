"""Findings of the doctor: ok, warn or fail, the message, and the fix."""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's output."""

    name: str
    status: str
    found: str
    fix: str = ""


def worst(findings: list[Finding]) -> str:
    """The worst status among findings."""
    return max((finding.status for finding in findings), key=(OK, WARN, FAIL).index, default=OK)


def findings_text(findings: list[Finding]) -> str:
    """A line per finding, and its fix below."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:5}{finding.name:{width}}  {finding.found}")
        lines += [f"{'':{width + 7}}fix: {finding.fix}"] if finding.fix else []
    return "\n".join(lines)
