"""Everything that the doctor looks at, in the order in which it tells."""

from collections.abc import Callable, Iterator

from stages.run.errors import UserError, UserErrors
from stages.workspace import machine, project
from stages.workspace.findings import FAIL, Finding

Check = Callable[[], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    machine.python, machine.packages, machine.gpu, machine.compilers, machine.kernels,
    machine.pycolmap, project.lpips, project.fixer, project.git, project.dvc, machine.disk,
    machine.memory, machine.slurm,
)  # fmt: skip
SLOW: tuple[Check, ...] = (machine.kernels,)


def examine(*, quick: bool = False) -> list[Finding]:
    """Every finding; `quick` leaves out what takes more than a moment."""
    found: list[Finding] = []
    for check in CHECKS:
        if quick and check in SLOW:
            continue
        try:
            found += check()
        except UserError as error:
            first = error.errors[0] if isinstance(error, UserErrors) else error
            what = f"{first.where}: {first.got}"
            found.append(Finding(check.__name__, FAIL, what, first.fix))
    return found
