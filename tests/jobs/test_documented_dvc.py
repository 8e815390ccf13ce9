"""Commands of README and docs about any DVC project, run one after another on a small one."""

import shlex

import pytest
from documented import ON_PROJECT
from project import Dvc, Project, Submit

pytestmark = pytest.mark.slow


def test_commands_of_the_docs_run(project: Project, submit: Submit, dvc: Dvc) -> None:
    assert submit("--local")[0] == 0
    for name in ("First", "Second"):
        project.run("git", "add", "-A")
        project.run("git", "commit", "-q", "--allow-empty", "-m", name)
    failed = {}
    for written, as_run in ON_PROJECT.items():
        first, *words = shlex.split(as_run or written)
        if first == "dvc":
            code, output = dvc(project.folder, *words)
        else:
            assert words[:2] == ["-m", "stages.submit"]
            code, output = submit(*words[2:])
        if code:
            failed[written] = output
    assert not failed, "\n\n".join(f"{one}\n{output}" for one, output in failed.items())


def test_checkout_brings_back_what_a_failed_stage_lost(
    project: Project, submit: Submit, dvc: Dvc
) -> None:
    """DVC removes the outputs of a stage before it runs it, the small ones in git too."""
    project.run("dvc", "repro", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "First")
    lost = [project.folder / "data/b/a.txt", project.folder / "metrics/a.json"]
    kept = [path.read_text() for path in lost]
    project.change(plus=1)
    project.work(fail=["double@a"])
    assert dvc(project.folder, "repro", "double@a")[0] != 0
    assert [path.exists() for path in lost] == [False, False]
    project.run("git", "checkout", "--", "params.yaml", "dvc.lock", "metrics")
    assert dvc(project.folder, "checkout")[0] == 0
    assert [path.read_text() for path in lost] == kept
