"""How benchmarks start and end, and arguments that several of them take."""

import re
import signal
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable

from stages.run.errors import UserError


def launch(main: Callable[[], None]) -> None:
    """Run a benchmark's `main`.

    Errors that the user can fix end with their message and exit code 2. SIGTERM ends it as Ctrl-C
    does, so that temporary folders are removed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def size(text: str) -> str:
    """Width x height in px, as the `type` of an argument.

    >>> size("540x960")
    '540x960'
    """
    if not re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", text):
        raise ArgumentTypeError(f"{text} is no width x height, such as 540x960")
    return text


def at_least(least: int) -> Callable[[str], int]:
    """The `type` of an argument that is a number from `least` on.

    >>> at_least(2)("3")
    3
    """

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise ArgumentTypeError(f"{value} is below {least}")
        return value

    return number
