"""The one exception type that users see: where, what was got, what was expected, the fix."""

import sys
from collections.abc import Iterable


class UserError(Exception):
    """Bad input in one message: `where: got`, then `expected`, `hint` and `fix`.

    >>> print(UserError("params.yaml:41  train.lr", "-1", expected="a positive number"))
    params.yaml:41  train.lr: -1
    expected a positive number
    """

    def __init__(
        self, where: object, got: str, *, expected: str = "", hint: str = "", fix: str = ""
    ):
        self.where, self.got, self.expected, self.hint, self.fix = where, got, expected, hint, fix
        lines = [f"{where}: {got}"]
        lines += [f"expected {expected}"] if expected else []
        lines += [hint] if hint else []
        lines += [f"fix: {fix}"] if fix else []
        super().__init__("\n".join(lines))


class UserErrors(UserError):
    """Several errors found in one pass, printed with a blank line between them."""

    def __init__(self, errors: Iterable[UserError]):
        self.errors = list(errors)
        Exception.__init__(self, "\n\n".join(str(error) for error in self.errors))


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise every collected error as one exception; do nothing when there is none."""
    errors = list(errors)
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)


_shown: set[str] = set()


def warn_once(line: str, subject: str = "") -> None:
    """Print a line to stderr, unless it or one of the same subject was shown in this process."""
    if (subject or line) not in _shown:
        _shown.add(subject or line)
        print(line, file=sys.stderr, flush=True)
