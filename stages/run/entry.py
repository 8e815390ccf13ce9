"""How every `python -m stages.<name>` starts and how it ends when something is wrong."""

import errno
import os
import sys
from collections.abc import Callable

from stages.run.errors import UserError

# The cores of a shared machine go to processes, not to threads inside one: several threads were
# measured slower than one on the small CPU problems of this project, and one thread gives
# identical bytes from run to run.
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def launch(main: Callable[[], None]) -> None:
    """Run an entry's `main`; end with exit code 2 and one message when the user can mend it.

    `main` parses its arguments before it imports anything heavy, so that `--help` is instant.
    """
    for name in _THREAD_LIMITS:
        os.environ.setdefault(name, "1")
    try:
        main()
    except UserError as error:
        sys.exit(_report(str(error)))
    except Exception as error:
        where = _full_disk(error)
        if where is None:
            raise
        message = UserError(where, "no space left on the disk", fix="free some space and run again")
        sys.exit(_report(str(message)))


def _full_disk(error: BaseException | None) -> str | None:
    """Where the disk was full, if that is what an error or its cause says; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return str(error.filename or os.getcwd())
        # Writers in other languages, such as that of safetensors, pass on the text alone.
        if os.strerror(errno.ENOSPC) in str(error):
            return os.getcwd()
        error = error.__cause__ or error.__context__
    return None


def _report(message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return 2
