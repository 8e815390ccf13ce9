import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.run.entry import launch
from stages.run.errors import UserError, UserErrors
from stages.run.files import whole_file

ROOT = Path(__file__).parents[2]


def exit_of(main: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of an entry."""
    with pytest.raises(SystemExit) as caught:
        launch(main)
    return caught.value.code, *capsys.readouterr()


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_user_error_ends_with_code_2_and_its_message_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = UserErrors([UserError("a", "1"), UserError("b", "2")])
    assert exit_of(raising(error), capsys) == (2, "", "a: 1\n\nb: 2\n")


def test_missing_package_is_named_with_what_sets_it_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, text = exit_of(lambda: __import__("a_package_that_is_not_there"), capsys)
    assert code == 2
    assert "no package a_package_that_is_not_there" in text
    assert "make setup" in text
    with pytest.raises(ModuleNotFoundError):
        launch(lambda: __import__("stages.that_is_not_there"))


def test_full_gpu_says_what_takes_less(capsys: pytest.CaptureFixture[str]) -> None:
    from torch import OutOfMemoryError

    error = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore")
    code, _, text = exit_of(raising(error), capsys)
    assert code == 2
    assert text.startswith("GPU: Tried to allocate 2.00 GiB.")
    assert "runtime.train.workers" in text
    assert "more" not in text


def test_full_disk_names_the_file_that_was_being_written(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "metrics.json"

    def main() -> None:
        with whole_file(target), open("/dev/full", "w") as out:
            out.write("x")

    code, _, message = exit_of(main, capsys)
    assert code == 2
    assert message.startswith(f"{target}: no space left on the disk\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (OSError(errno.EFBIG, "File too large"), "grew beyond what the system allows"),
        (RuntimeError("No space left on device (os error 28)"), "no space left on the disk"),
    ],
)
def test_full_disk_is_reported_however_a_writer_says_it(
    error: Exception, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text in exit_of(raising(error), capsys)[2]


def test_full_disk_is_reported_when_cleaning_up_fails_as_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/mnt/a")
        finally:
            raise RuntimeError("stream already closed")

    assert "/mnt/a: no space left" in exit_of(main, capsys)[2]


def write_below(path: Path) -> Callable[[], None]:
    def main() -> None:
        with whole_file(path) as scratch:
            scratch.write_text("x")

    return main


def test_what_a_path_does_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("")
    folder.mkdir()
    for main, where, text in (
        (write_below(file / "x.json"), file, "a file, where a folder is expected"),
        (write_below(file / "x" / "y.json"), file, "a file, where a folder is expected"),
        (lambda: os.listdir(file), file, "a file, where a folder is expected"),
        (folder.read_bytes, folder, "a folder, where a file is expected"),
        ((tmp_path / "gone").read_bytes, tmp_path / "gone", "no such file or folder"),
        (write_below(tmp_path / ("n" * 300)), "n" * 300, "a name too long"),
    ):
        code, _, message = exit_of(main, capsys)
        assert code == 2
        assert str(where) in message.splitlines()[0]
        assert text in message.splitlines()[0]
        assert "\nfix: " in message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO])
def test_a_path_that_refuses_is_named_also_as_a_cause(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        try:
            raise OSError(number, os.strerror(number), "/mnt/a")
        except OSError as error:
            raise RuntimeError("the writer failed") from error

    assert exit_of(main, capsys)[2].startswith("/mnt/a: ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_used_up_memory_names_what_takes_less(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, text = exit_of(raising(error), capsys)
    assert code == 2
    assert text.startswith("memory: ")
    assert "train.data_factor" in text


def test_libraries_speak_on_stdout_and_warn_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        logger = logging.getLogger("stages.splat.training.densify")
        logger.debug("not shown")
        logger.info("%d Gaussians", 12)
        logger.warning("the cap was reached")
        logging.getLogger("another.package").info("not shown")

    for _ in range(2):  # a second run does not show lines twice
        launch(main)
        out, err = capsys.readouterr()
        assert (out, err) == ("12 Gaussians\n", "WARNING: the cap was reached\n")


def test_other_packages_warn_as_they_do_without_an_entry(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    launch(lambda: logging.getLogger("another.package").warning("deprecated"))
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["deprecated"]


def test_messages_of_a_run_and_of_its_children_keep_their_order() -> None:
    """Into one pipe, which is buffered unless each line is flushed."""
    say = "logging.getLogger('stages.run.x')"
    child = f"import logging; from stages.run.entry import launch; launch(lambda: {say}.info('b'))"
    code = (
        "import logging, sys\n"
        "from stages.run.entry import launch\n"
        "from stages.run.process.parallel import run_all\n"
        "def main():\n"
        f"    {say}.info('a')\n"
        f"    run_all([[sys.executable, '-c', {child!r}]], 1)\n"
        f"    {say}.warning('c')\n"
        f"    {say}.info('d')\n"
        "launch(main)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert ended.stdout.splitlines() == ["a", "b", "WARNING: c", "d"]


def test_a_reader_that_leaves_while_a_library_speaks_is_no_error() -> None:
    code = (
        "import logging; from stages.run.entry import launch;"
        "launch(lambda: [logging.getLogger('stages.x').info('word ' * 100) for _ in range(10000)])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(4)
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(PermissionError):
        launch(raising(PermissionError(errno.EACCES, "a path is not named")))
    with pytest.raises(KeyError):
        launch(raising(KeyError("x")))
    with pytest.raises(ZeroDivisionError):
        launch(lambda: 1 / 0)


def test_a_reader_that_stops_early_is_no_error() -> None:
    text = "from stages.run.entry import launch; launch(lambda: print('word ' * 100_000))"
    with subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(4)
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")


def test_path_of_foreign_bytes_is_printed() -> None:
    """As under a UTF-8 locale, whose standard output refuses it."""
    code = (
        "import os; from stages.run.entry import launch;"
        "launch(lambda: print(os.fsdecode(b'p/\\xc7\\xd1')))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"p/\\udcc7\\udcd1\n"


def test_threads_are_limited_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    environment = {}
    launch(lambda: environment.update(os.environ))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")  # so that its removal is undone as well
    assert (environment["OMP_NUM_THREADS"], environment["NUMBA_NUM_THREADS"]) == ("7", "1")
