"""A study as text, from `study:` in params.yaml: its memo and a short summary."""

from stages.run.plurals import counted
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.roles import Verdict


def memo(study: StudyConfig) -> str:
    """Markdown of one study version: objective, hypothesis, split, decisions, outputs."""
    split = {
        "DiFix tuning": study.tuning_scenes,
        "DiFix internal evaluation": study.internal_eval_scenes,
        "Downstream evaluation": study.downstream_scenes,
        "Reserved, never for tuning or internal evaluation": study.reserved_scenes,
        "Prepared, calibrated and trained, in this order": study.scenes,
        "Rendered and measured": study.evaluated_scenes,
        "Methods": study.methods,
    }
    texts = {
        "Key decisions": study.key_decisions,
        "Expected outputs": study.expected_outputs,
        "Out of scope": study.out_of_scope,
    }
    head = [f"# Study {study.version}", "", study.objective, "", f"> {study.hypothesis}"]
    imports = {
        "Imported, for DiFix tuning": study.tuning_imports,
        "Imported, for DiFix internal evaluation": study.internal_eval_imports,
    }
    split |= {title: names for title, names in imports.items() if names}
    sections = [_section(title, lines) for title, lines in (split | texts).items()]
    return "\n".join([*head, *sections, "", f"Subject of the headline: {study.subject}"])


def summary(study: StudyConfig, verdict: Verdict) -> str:
    """Version, scenes by role, methods and the guard's verdict on names."""
    lines = [
        f"study {study.version}: {counted(len(study.scenes), 'scene')}, "
        f"methods {', '.join(study.methods)}, headline {study.subject}"
    ]
    for role, members in verdict.groups_by_role:
        lines.append(f"  {role:21}{', '.join(scene for scene, _ in members) or 'none'}")
    lines += [
        f"guard: by name nothing is both tuned on and measured, verdict {verdict.hash[:12]}; "
        "images are compared by stage manifest"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in verdict.notes)])


def _section(title: str, lines: tuple[str, ...]) -> str:
    items = [f"{number}. {line}" for number, line in enumerate(lines, 1)] or ["(none)"]
    return "\n".join(["", f"## {title}", "", *items])
