"""All checks of the doctor, in the order of its output."""

from collections.abc import Callable, Iterator

from stages.run.errors import UserError, UserErrors
from stages.workspace import machine, project
from stages.workspace.findings import FAIL, Finding

Check = Callable[[], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    machine.python,
    machine.packages,
    machine.gpu,
    machine.compilers,
    machine.kernels,
    machine.pycolmap,
    project.lpips,
    project.fixer,
    project.git,
    project.dvc,
    machine.disk,
    machine.memory,
    machine.slurm,
)
SLOW: tuple[Check, ...] = (machine.kernels,)


def examine(*, quick: bool = False) -> list[Finding]:
    """All findings; `quick` skips slow checks."""
    findings: list[Finding] = []
    for check in CHECKS:
        if quick and check in SLOW:
            continue
        try:
            findings += check()
        except UserError as error:
            first = error.errors[0] if isinstance(error, UserErrors) else error
            message = f"{first.where}: {first.got}"
            findings.append(Finding(check.__name__, FAIL, message, first.fix))
    return findings
