"""Atomic files and folders (scratch, then rename), JSON and TSV, content hashes, safe names.

DVC removes a stage's outs before it runs; the remains of a killed stage must not count as a result.
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.plurals import counted, first_few
from stages.run.process.locks import alone

WORK_ROOT_VARIABLE = "SPLATFIX_WORK"
_REPRO_FIX = "run `dvc repro` for the stage that writes it"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class RepeatedKeys(ValueError):
    """A JSON object with a key twice."""


def work_root() -> Path:
    """Folder for scratch and resume state, outside every DVC out: `.work`, or `$SPLATFIX_WORK`."""
    return Path(os.environ.get(WORK_ROOT_VARIABLE) or ".work")


def safe_name(name: str, where: object) -> str:
    """Return a name that is one folder level. Raises UserError for any other."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(where, repr(name), expected="letters, digits, '_', '-' and '.' only")
    return name


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block ends without an error.

    The scratch folder is beside `target` (the rename stays on one file system) under a hidden
    name. An error removes it and leaves an older `target` unchanged. An older `target` is renamed
    before it is deleted: a killed process leaves it complete or absent. Raises UserError when
    another run writes `target`.
    """
    target = Path(target)
    with alone(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.part")
        old = target.with_name(f".{target.name}.old.part")
        for leftover in (scratch, old):
            _remove(leftover)
        scratch.mkdir()
        try:
            with _named_after(target):
                yield scratch
            if os.path.lexists(target):
                target.rename(old)
            scratch.rename(target)
        finally:
            for leftover in (scratch, old):
                _remove(leftover)


@contextmanager
def scratch_folder(stage: str, item: str) -> Iterator[Path]:
    """An empty folder `<work root>/<stage>/<item>...`, removed after the block.

    What a killed run in this workspace left of it is removed before. Raises UserError when another
    run here uses it.
    """
    # Workspaces may share the work folder.
    folder = work_root() / stage / f"{item}.{text_hash(os.getcwd())[:8]}"
    with alone(folder):
        _remove(folder)
        folder.mkdir(parents=True)
        try:
            with _named_after(folder):
                yield folder
        finally:
            _remove(folder)


def target_of(folder: Path) -> Path:
    """The target of a scratch folder of `whole_folder`; any other folder itself.

    >>> target_of(Path("train/.held_out.part")).as_posix(), target_of(Path("a/b")).as_posix()
    ('train/held_out', 'a/b')
    """
    is_scratch = folder.name.startswith(".") and folder.name.endswith(".part")
    return folder.with_name(folder.name[1:].removesuffix(".part")) if is_scratch else folder


def _remove(folder: Path) -> None:
    """Remove a folder, a file, or a link without its target."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A scratch path that replaces `target` when the block ends without an error."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part")
    try:
        with _named_after(target):
            yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file, which is only ever replaced, a second name; copy it where none can be.

    Raises OSError for a file that cannot be read, or a folder that cannot be written.
    """
    with whole_file(target) as scratch:
        scratch.unlink(missing_ok=True)
        try:
            os.link(source, scratch)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, scratch)


@contextmanager
def _named_after(target: Path) -> Iterator[None]:
    """Name `target` in an OSError that has no file name, such as that of a failed write."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(target)
        raise


def write_json(target: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with a stable layout; key order is the caller's. NaN and infinity are refused."""
    with whole_file(target) as scratch:
        scratch.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of finite numbers. Raises UserError when it is missing or broken."""
    text = _read_text(path)
    try:
        value = parse_json(text, keys_once=True)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}", f"not JSON: {error.msg}", fix=_REPRO_FIX
        ) from error
    except RepeatedKeys as error:
        fix = "keep one of each in its object: readers take only the last"
        raise UserError(path, str(error), expected="each key once", fix=fix) from error
    except ValueError as error:
        raise UserError(path, f"not JSON: {error}", fix=_REPRO_FIX) from error
    if not isinstance(value, dict):
        got = f"JSON, but a {type(value).__name__}"
        raise UserError(path, got, expected="an object: {...}", fix=_REPRO_FIX)
    return value


def parse_json(text: str | bytes, *, keys_once: bool = False) -> Any:
    """The value of a JSON text.

    Raises ValueError for other texts, for NaN and infinity, and with `keys_once` RepeatedKeys for
    an object with a key twice, of which Python would drop the first.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_keys_once if keys_once else None,
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, which is infinite")
    return value


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = [repr(key) for key, count in counts.items() if count > 1]
        raise RepeatedKeys(f"one object holds these keys more than once: {first_few(twice)}")
    return value


def _read_text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(path, "no such file", fix=_REPRO_FIX) from error
    except UnicodeDecodeError as error:
        raise UserError(path, f"not text ({error.reason})", fix=_REPRO_FIX) from error


@contextmanager
def shaped(path: Path, expected: str, fix: str = "") -> Iterator[None]:
    """Turn errors of reading a file with unexpected content into a UserError."""
    try:
        yield
    except KeyError as error:
        raise UserError(
            path, f"no usable {error}", expected=expected, fix=fix or _REPRO_FIX
        ) from error
    except (AttributeError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            path, f"unexpected content ({error})", expected=expected, fix=fix or _REPRO_FIX
        ) from error


def write_tsv(target: Path, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Write rows as tab-separated text with a header; None becomes an empty cell."""
    with whole_file(target) as scratch, scratch.open("w") as out:
        out.write("\t".join(columns) + "\n")
        for row in rows:
            cells = ("" if row[key] is None else str(row[key]) for key in columns)
            out.write("\t".join(cells) + "\n")


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated file with a header, as strings. Raises UserError when broken."""
    header, *lines = _read_text(path).splitlines() or [""]
    columns = header.split("\t")
    rows = [line.split("\t") for line in lines]
    for number, cells in enumerate(rows, 2):
        if len(cells) != len(columns):
            raise UserError(
                f"{path}:{number}",
                counted(len(cells), "cell"),
                expected=f"{len(columns)}: {header!r}",
            )
    return [dict(zip(columns, cells, strict=True)) for cells in rows]


def read_table(path: Path, texts: AbstractSet[str]) -> list[dict[str, Any]]:
    """Rows of a tab-separated file: numbers, None for empty cells, and strings in `texts`.

    Raises UserError when the file is broken, a column of `texts` is missing, or a cell is not a
    number.
    """
    rows: list[dict[str, Any]] = [*read_tsv(path)]
    for number, row in enumerate(rows, 2):
        for column in texts - row.keys():
            raise UserError(f"{path}:1", f"no column {column!r}", fix=_REPRO_FIX)
        for column in row.keys() - texts:
            try:
                row[column] = _finite(row[column]) if row[column] else None
            except ValueError as error:
                got = f"{column}: {row[column]!r}"
                raise UserError(
                    f"{path}:{number}", got, expected="a number", fix=_REPRO_FIX
                ) from error
    return rows


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with Path(path).open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def text_hash(*parts: str) -> str:
    """SHA-256 over texts, each terminated by a null byte so that boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        # File names may hold bytes that are not UTF-8.
        digest.update(part.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def set_hash(hashes: Iterable[str]) -> str:
    """One hash for a set of files from their hashes: order, names and copies do not count.

    >>> set_hash(["b", "a", "a"]) == set_hash(["a", "b"]) != set_hash(["a"])
    True
    """
    return text_hash(*sorted(set(hashes)))


def folder_hash(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    parts = (
        part for path in files for part in (path.relative_to(folder).as_posix(), file_hash(path))
    )
    return text_hash(*parts)
