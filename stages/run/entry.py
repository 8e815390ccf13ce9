"""How every `python -m stages.<name>` starts, and how it ends after an error or a signal."""

import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import stages
from stages.run import digests
from stages.run.at_work import at_work, spoke
from stages.run.errors import UserError
from stages.run.process.memory import keep_freed_memory
from stages.run.process.processes import end_with_dvc
from stages.run.process.stopping import PREEMPTED, Stopping
from stages.run.settings import readings

# Cores are for processes, not for threads: on this project's small CPU problems several threads
# were measured slower than one, and one thread gives identical bytes in every run.
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_NO_ROOM = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew beyond what the system allows",
}

# Errors of the file system that name a path; the user can fix all of them.
_PATHS = {
    errno.EACCES: ("no permission", "grant yourself access, or name another path"),
    errno.EPERM: ("not permitted", "grant yourself access, or name another path"),
    errno.EROFS: ("the file system is read-only", "name a path that can be written to"),
    errno.ENOENT: ("no such file or folder", "name one that exists, or create it"),
    errno.ENOTDIR: ("a file, where a folder is expected", "name a folder, or move the file away"),
    errno.EISDIR: ("a folder, where a file is expected", "name a file, or move the folder away"),
    errno.EEXIST: ("exists already", "name another path, or move it away"),
    errno.ENOTEMPTY: ("not empty", "name another path, or move it away"),
    errno.ENAMETOOLONG: ("a name too long for this file system", "name a shorter one"),
    errno.ELOOP: ("links in a circle", "fix the links"),
    errno.EIO: ("the disk cannot read or write it", "check the disk, then run again"),
    errno.ESTALE: ("a stale handle of a file server", "mount it again, then run again"),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`, then run again"),
}

_LESS_FIX = (
    "use less at once: runtime.train.workers, train.max_gaussians, difix.batch_size, "
    "tune.batch_size or tune.gradient_checkpointing"
)
LESS_MEMORY = (
    "raise train.data_factor, lower prepare.height_px, train.max_gaussians, "
    "runtime.train.workers, runtime.novel_views.workers or runtime.tune.cache_mib, or use a "
    "machine with more memory"
)
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "std::bad_alloc")
_SETUP_FIX = "run `make setup`, then use .venv/bin/python or activate .venv"


def launch(main: Callable[[], None]) -> None:
    """Run an entry's `main`; errors that the user can fix end with exit code 2 and one message.

    After a signal to stop the exit code is PREEMPTED. `main` parses its arguments before it
    imports anything heavy, so that `--help` is instant.
    """
    for name in _THREAD_LIMITS:
        os.environ.setdefault(name, "1")
    keep_freed_memory()
    # A path may hold bytes that cannot be encoded; stderr escapes them by default.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with _messages(), Stopping() as stop:
        try:
            if readings.PARAMS_ENV not in os.environ:  # children end with the run that started them
                end_with_dvc()
            with readings.tracking():
                _run(main)
        except SystemExit:
            raise
        except BaseException:
            if not stop.noticed:
                raise
            # The interrupted code may have turned the signal into any other error.
            if readings.PARAMS_ENV not in os.environ:  # of children the parent says so
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
        spoke()


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
        stage = os.environ.get("DVC_STAGE")
        with digests.recorded(), at_work(stage) if stage else nullcontext():
            main()
        readings.check()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(_report(str(error)))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stages"):
            raise
        missing = UserError(sys.executable, f"no package {error.name}", fix=_SETUP_FIX)
        sys.exit(_report(str(missing)))
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        message = _resource_error(error) or _path_error(error)
        if message is None:
            raise
        sys.exit(_report(str(message)))


def _path_error(error: BaseException | None) -> UserError | None:
    """The message for an error of the file system that names a path, or that has such a cause."""
    while error is not None:
        if isinstance(error, OSError) and error.filename and error.errno in _PATHS:
            path = os.fsdecode(error.filename)
            # Creating a folder where a file is says that it exists.
            is_file = error.errno == errno.EEXIST and os.path.isfile(path)
            got, fix = _PATHS[errno.ENOTDIR if is_file else error.errno]
            return UserError(path, got, fix=fix)
        error = error.__cause__ or error.__context__
    return None


def _resource_error(error: BaseException | None) -> UserError | None:
    """The message for a full disk, GPU or memory, if an error or one of its causes says so."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which takes long to import
            first, *_ = str(error).splitlines()
            return UserError("GPU", first.removeprefix("CUDA out of memory. "), fix=_LESS_FIX)
        if _out_of_memory(error):
            return UserError("memory", "none left on this machine", fix=LESS_MEMORY)
        for code, got in _NO_ROOM.items():
            is_code = isinstance(error, OSError) and error.errno == code
            # Writers in other languages, such as that of safetensors, pass on the text alone.
            if is_code or os.strerror(code) in str(error):
                where = getattr(error, "filename", None) or os.getcwd()
                return UserError(where, got, fix="free some space and run again")
        error = error.__cause__ or error.__context__
    return None


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def _report(message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return 2
