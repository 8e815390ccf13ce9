"""`dvc repro` with the place of each stage in the plan."""

import re
import subprocess
import sys

from project import ROOT, Project

REPRODUCE = """
import sys
from stages.graph.repository import due, stage_statuses
from stages.graph.reproduce import reproduce

sys.exit(reproduce(sys.argv[1:], [stage.name for stage in due(stage_statuses())]))
"""


def reproduce(project: Project, *targets: str, check: bool = True) -> tuple[int, list[str]]:
    """Exit code, and the lines on stages."""
    done = project.run(sys.executable, "-c", REPRODUCE, *targets, check=check)
    return done.returncode, [line for line in done.stdout.splitlines() if "tage '" in line]


def test_stages_are_counted_among_the_planned_ones(project: Project) -> None:
    code, lines = reproduce(project)
    assert code == 0
    assert [line.partition(" ")[0] for line in lines] == [f"[{n}/5]" for n in range(1, 6)]
    assert lines[-1] == "[5/5] Running stage 'total':"
    assert len(project.ran()) == 5
    _, lines = reproduce(project)
    assert all(line.startswith("Stage '") and line.endswith("skipping") for line in lines)
    assert project.is_clean()


def test_stages_from_the_run_cache_and_up_to_date_ones_count_too(project: Project) -> None:
    project.run("dvc", "repro")
    project.change(plus=1)
    project.run("dvc", "repro")
    project.change(plus=0)
    project.ran()
    _, lines = reproduce(project)
    planned = [line for line in lines if line.startswith("[")]
    assert [line.partition(" ")[0] for line in planned] == [f"[{n}/5]" for n in range(1, 6)]
    assert all("is cached - skipping run" in line for line in planned)
    assert project.ran() == []


def test_only_what_dvc_does_itself_counts_as_its_work() -> None:
    """In a process of its own, since tests have children of theirs."""
    script = """
import subprocess, sys
from stages.graph.reproduce import _has_children
print(_has_children())
with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
    print(_has_children())
    child.communicate(b"\\n")
print(_has_children())
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_failure_of_a_stage_is_that_of_dvc(project: Project) -> None:
    project.work(fail=["double@a"])
    code, lines = reproduce(project, check=False)
    plain = project.run("dvc", "repro", check=False)
    assert code == plain.returncode != 0
    assert re.fullmatch(r"\[\d/5\] Running stage 'double@a':", lines[-1])
