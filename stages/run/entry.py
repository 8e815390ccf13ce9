"""How every `python -m stages.<name>` starts and how it ends when something is wrong."""

import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import stages
from stages.run import digests
from stages.run.errors import UserError
from stages.run.process.processes import end_with_dvc
from stages.run.process.stopping import PREEMPTED, Stopping
from stages.run.settings import readings

# The cores of a shared machine go to processes, not to threads inside one: several threads were
# measured slower than one on the small CPU problems of this project, and one thread gives
# identical bytes from run to run.
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_NO_ROOM = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew beyond what the system allows",
}

# What a path may do to whoever opens it; all of it can be mended outside of this project.
_PATHS = {
    errno.EACCES: ("no permission", "give yourself the right to it, or name another place"),
    errno.EPERM: ("not permitted", "give yourself the right to it, or name another place"),
    errno.EROFS: ("the file system is read-only", "name a place that can be written to"),
    errno.ENOENT: ("no such file or folder", "name one that exists, or make it"),
    errno.ENOTDIR: ("a file, where a folder is expected", "name a folder, or move the file away"),
    errno.EISDIR: ("a folder, where a file is expected", "name a file, or move the folder away"),
    errno.EEXIST: ("is there already", "name another place, or move it away"),
    errno.ENOTEMPTY: ("not empty", "name another place, or move it away"),
    errno.ENAMETOOLONG: ("a name too long for this file system", "name a shorter one"),
    errno.ELOOP: ("links that lead in a circle", "mend the links"),
    errno.EIO: ("the disk cannot read or write it", "look at the disk, then run again"),
    errno.ESTALE: ("the file server has lost it", "mount it again, then run again"),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`, then run again"),
}

_LESS = (
    "ask for less at once: train.workers, train.max_gaussians, difix.batch_size, tune.batch_size "
    "or tune.gradient_checkpointing"
)
LESS_MEMORY = (
    "raise train.data_factor, lower prepare.height_px, train.max_gaussians, train.workers, "
    "novel_views.workers or tune.cache_mib, or use a machine with more memory"
)
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "std::bad_alloc")
_SET_UP = "run `make setup`, then use .venv/bin/python or activate .venv"


def launch(main: Callable[[], None]) -> None:
    """Run an entry's `main`; end with exit code 2 and one message when the user can mend it.

    Told to stop, it ends with PREEMPTED. `main` parses its arguments before it imports anything
    heavy, so that `--help` is instant.
    """
    for name in _THREAD_LIMITS:
        os.environ.setdefault(name, "1")
    # A path may be of bytes that cannot be written; stderr stands that by itself.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with _messages(), Stopping() as stop:
        try:
            if readings.HANDED not in os.environ:  # else it ends with the run that started it
                end_with_dvc()
            with digests.recorded(), readings.noted():
                _run(main)
        except SystemExit:
            raise
        except BaseException:
            if not stop.noticed:
                raise
            # What the signal interrupted may have made any other error of it.
            if readings.HANDED not in os.environ:  # else whoever started this one tells
                print("stopped; run again to go on", file=sys.stderr, flush=True)
            sys.exit(PREEMPTED)


class _Console(logging.Handler):
    """INFO to stdout as it is, WARNING and above to stderr with the level before it.

    Lines are flushed one by one: those of child processes share the pipe.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. Errors of writing are the caller's, as those of `print` are."""
        message = self.format(record)
        if record.levelno < logging.WARNING:
            print(message, flush=True)
        else:
            print(f"{record.levelname}: {message}", file=sys.stderr, flush=True)


@contextmanager
def _messages() -> Iterator[None]:
    """Show what the modules of `stages` log from INFO on; other packages are left as they are."""
    console, logger = _Console(), logging.getLogger(stages.__name__)
    before = logger.level
    logger.addHandler(console)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(console)


def _run(main: Callable[[], None]) -> None:
    try:
        main()
        readings.check()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(_report(str(error)))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stages"):
            raise
        missing = UserError(sys.executable, f"no package {error.name}", fix=_SET_UP)
        sys.exit(_report(str(missing)))
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        message = _used_up(error) or _blocked(error)
        if message is None:
            raise
        sys.exit(_report(str(message)))


def _blocked(error: BaseException | None) -> UserError | None:
    """What to tell when a path is not what it must be, if an error or its cause names one."""
    while error is not None:
        if isinstance(error, OSError) and error.filename and error.errno in _PATHS:
            path = os.fsdecode(error.filename)
            # Making a folder where a file lies says that it exists.
            in_the_way = error.errno == errno.EEXIST and os.path.isfile(path)
            what, fix = _PATHS[errno.ENOTDIR if in_the_way else error.errno]
            return UserError(path, what, fix=fix)
        error = error.__cause__ or error.__context__
    return None


def _used_up(error: BaseException | None) -> UserError | None:
    """What to tell when a disk, a GPU or the memory is used up, if an error or its cause says."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which takes long to import
            first, *_ = str(error).splitlines()
            return UserError("GPU", first.removeprefix("CUDA out of memory. "), fix=_LESS)
        if _out_of_memory(error):
            return UserError("memory", "this machine gave no more", fix=LESS_MEMORY)
        for code, what in _NO_ROOM.items():
            told = isinstance(error, OSError) and error.errno == code
            # Writers in other languages, such as that of safetensors, pass on the text alone.
            if told or os.strerror(code) in str(error):
                where = getattr(error, "filename", None) or os.getcwd()
                return UserError(where, what, fix="make room and run again")
        error = error.__cause__ or error.__context__
    return None


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(told in str(error) for told in _NO_MEMORY)


def _report(message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return 2
