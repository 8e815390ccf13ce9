"""params.yaml as `python -m stages.check` reads and judges it, and values of the command line."""

import io
import json
import math
import re
from collections.abc import Mapping
from contextlib import chdir, redirect_stdout
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from damage import Subject, bytes_of, text_of, value_of
from ruamel.yaml import YAML

from stages import check
from stages.run.settings import readings
from stages.run.settings.overrides import literal
from stages.run.settings.params import Params, Section

_ROOT = Path(__file__).resolve().parents[2]
# Sections that every study needs whole, and how many others are given as they are in the project.
_NEEDED, _GIVEN = ("study", "scenes", "captures", "slurm"), 4
_SCENES = ("hi4d_pair00_dance", "hi4d_pair02_dance", "hi4d_pair15_fight")
_ODD = (
    ".inf",
    "-.inf",
    ".nan",
    "1e999",
    "-1",
    "0",
    "1e308",
    "-0.0",
    "0x" + "f" * 40,
    "9" * 400,
    "9" * 5000,
    "0o17",
    "0b1",
    "1_000",
    "12:30:45",
    "2001-12-14",
    "2001-99-99",
    "2001-12-14t21:59",
    "null",
    "~",
    "",
    "yes",
    "true",
    "[]",
    "{}",
    "[1, [2, {a: 3}]]",
    "{1: 2}",
    "{[a]: b}",
    "'\\0'",
    '"\\0"',
    '"\\ud800"',
    '"\\U00110000"',
    '"\\x7f"',
    "'a\n\n  b'",
    "|",
    ">-\n  x",
    "..",
    "../..",
    "~nobody/x",
    "/",
    "'*'",
    "*none",
    "&a [*a]",
    "&a {b: *a}",
    "&a 1",
    "<<: *a",
    "!!binary aGk=",
    "!!binary '='",
    "!!python/object/apply:os.getcwd []",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!int x",
    "!!float x",
    "!!bool x",
    "!!null x",
    "!!timestamp x",
    "!!str 1",
    "!!seq {a: 1}",
    "!!map [1]",
    "!own x",
    "!<> x",
    "!",
    "@",
    "`",
    "%",
    "[",
    "{a: 1",
    "'",
    '"',
    "? a",
    "- a",
    "a: b: c",
    "# x",
    "\t1",
    "\u2028",
    "\ufeff",
    "\u202ex",
    "\U0001f600",
    "[" * 60 + "]" * 60,
    "[" * 400 + "]" * 400,
    "{a: " * 400 + "1" + "}" * 400,
    "- " * 400 + "x",
    "x" * 100_000,
)
_OVERRIDES = (
    "train.max_steps=300",
    "train.match_string=LEFT",
    "static.lf_calib=/tmp/calibration.tar",
    "+train.seed=1",
    "evaluate.lpips.net=alex",
)
_ODD_KEYS = (
    "1",
    "1.5",
    ".inf",
    "null",
    "true",
    "~",
    "''",
    "[a, b]",
    "{a: 1}",
    "? [a]\n",
    "<<",
    "&a b",
    "*a",
    "2001-12-14",
    "!!binary aGk=",
    "!!python/name:os.system",
    "a b",
    "\u00fc",
    '"\\0"',
    "..",
)


def subjects(folder: Path) -> list[Subject]:
    """A study of three scenes; most of its inputs are damaged as text, with their lines."""
    path = folder / "params.yaml"
    path.write_bytes(_text(_values()))
    found = [Subject(path, one, partial(_check, folder), _sane) for one in (_lines, _lines, _parts)]
    edited = Subject(path, _lines, partial(_edited, folder), _nothing)
    return [*found, Subject(path, _whole, partial(_check, folder), _sane), edited]


def overrides(folder: Path) -> list[Subject]:
    """Values of the command line, one a line."""
    values = _values()
    kept = {name: values[name] for name in ("train", "evaluate", "static")}
    (folder / "params.yaml").write_bytes(_text(kept))
    path = folder / "overrides.txt"
    path.write_text("\n".join(_OVERRIDES))
    return [Subject(path, _words, partial(_given, path), _sane)]


def _values() -> dict[str, Any]:
    """The project's params with fewer scenes, so that an input is read in little time."""
    values = YAML(typ="safe", pure=True).load(_ROOT / "params.yaml")
    absent = values["scenes"].keys() - set(_SCENES)
    values["scenes"] = {name: values["scenes"][name] for name in _SCENES}
    for section in (values["study"], values["demo"]):
        for key, value in section.items():
            if isinstance(value, list):
                section[key] = [one for one in value if one not in absent]
    return values


def _text(values: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    YAML(typ="safe", pure=True).dump(values, out)
    return out.getvalue()


def _fewer(data: bytes, draw: Random) -> str:
    """The text with most sections left to their defaults."""
    sections = re.split(r"^(?=\w)", data.decode(), flags=re.MULTILINE)[1:]
    names = [text.partition(":")[0] for text in sections]
    given = {*_NEEDED, *draw.sample(names, _GIVEN)}
    return "".join(
        text if name in given else f"{name}: {{}}\n"
        for name, text in zip(names, sections, strict=True)
    )


def _lines(data: bytes, draw: Random) -> bytes:
    """One to three lines with an odd value or key, lost, doubled, moved or indented."""
    lines = _fewer(data, draw).splitlines()
    for _ in range(draw.choice([1, 1, 2, 3])):
        at = draw.randrange(len(lines))
        head, colon, value = lines[at].partition(":")
        blank = head[: len(head) - len(head.lstrip(" -"))]
        how = draw.randrange(12)
        if how < 5:
            lines[at] = f"{head}: {draw.choice(_ODD)}" if colon else blank + draw.choice(_ODD)
        elif how < 7:
            lines[at] = f"{blank}{draw.choice(_ODD_KEYS)}{colon or ':'}{value}"
        elif how == 7:
            lines.insert(at, lines.pop(draw.randrange(len(lines))))
        elif how == 8:
            lines.insert(at, lines[at])
        elif how == 9:
            del lines[at]
        elif how == 10:
            lines[at] = draw.choice([" ", "\t", "  ", "- ", "? ", "<<: "]) + lines[at]
        else:
            lines[at] = f"{head}: &anchor{value}" if colon else f"{blank}*anchor"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _parts(data: bytes, draw: Random) -> bytes:
    """One value replaced, lost or doubled, anywhere in the study."""
    # JSON is YAML, and quicker to write.
    values = YAML(typ="safe", pure=True).load(_fewer(data, draw))
    section = draw.choice([name for name, value in values.items() if value])
    values[section] = value_of(values[section], draw)
    return json.dumps(values, indent=1).encode()


def _whole(data: bytes, draw: Random) -> bytes:
    """The file as a whole: its bytes, its encoding, what stands before it."""
    text = _fewer(data, draw)
    how = draw.randrange(5)
    if how == 4:  # a value whose aliases lead to ever more, or to itself
        text = re.sub(
            r": .*$",
            f": {draw.choice(['*a10', '*a2', '*loop', '[*a1]'])}",
            text,
            count=draw.randrange(1, 40),
            flags=re.MULTILINE,
        )
        return f"{_LAUGHS}loop: &loop [*loop]\n{text}".encode()
    if how == 0:
        return bytes_of(text.encode(), draw)
    if how == 1:
        return text_of(text.encode(), draw)
    if how == 2:
        codes = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7", "cp500")
        return (text + "# ü\n").encode(draw.choice(codes))
    before = (
        "---\n",
        "--- x\n",
        "...\n",
        "%YAML 1.1\n---\n",
        "%YAML 9.9\n---\n",
        "%TAG ! x\n---\n",
        "%YAML x\n---\n",
        "x\n",
        "- 1\n",
        "\0",
        "\x1b[2J",
        "\r",
        "a: 1\n---\n",
        "<<: {study: 1}\n",
        "<<: [{a: 1}, 2]\n",
        "a: &a {b: 1}\n<<: *a\n",
        _LAUGHS,
        "? {a: 1}\n: 2\n",
        "#\n" * 3,
    )
    return (draw.choice(before) + text).encode()


# Aliases of aliases, which are ten thousand million values when they are written out.
_LAUGHS = "a0: &a0 x\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 11)
)


def _words(data: bytes, draw: Random) -> bytes:
    lines = data.decode().split("\n")
    at = draw.randrange(len(lines))
    key, _, value = lines[at].partition("=")
    odd = draw.choice([*_ODD, "[1,2", "a=b", "1,2", "range(1,9)", "${x}", "glob(*)", "'x", "$(x)"])
    odd = odd.replace("\n", " ")
    keys = (
        "train",
        "train.",
        ".train",
        "train..seed",
        "study.x",
        "+a.b",
        "++a.b",
        "~train.seed",
        "train.seed.x",
        "+train.seed.x",
        "train@x.y",
        "evaluate.lpips",
        "static.scenes",
        "=",
        "+train.strategy.new",
        "1.2",
        "train.\u00fc",
        "hydra.run",
        "a/b.c",
    )
    choice = draw.randrange(4)
    if choice == 0:
        return bytes_of(data, draw)
    given = f"{draw.choice(keys)}={value}" if choice == 1 else f"{key}={odd}"
    lines[at] = literal(given) if draw.random() < 0.4 else given
    return "\n".join(lines).encode()


def _check(folder: Path) -> dict[str, Any]:
    """The command itself, then what the stages would be given."""
    with chdir(folder), redirect_stdout(io.StringIO()), patch("sys.argv", ["check", "--memo"]):
        check.main()
        return Params.read().check_all(check.SECTIONS, check.CATALOGUES)[0]


def _edited(folder: Path) -> None:
    """What a stage does at its end when the file has been edited meanwhile."""
    path = folder / "params.yaml"
    now = path.read_bytes()
    path.write_text("train: {seed: 1}\n")
    with readings.tracking(), patch("sys.stderr", io.StringIO()):
        Params.read(path).names("train")
        path.write_bytes(now)
        readings.check()


def _given(path: Path) -> dict[str, Any]:
    given = path.read_text(errors="surrogateescape").split("\n")
    params = Params.read(path.with_name("params.yaml"), [text for text in given if text])
    sections = {name: check.SECTIONS[name] for name in ("train", "evaluate", "static")}
    values = {}
    for name, model in sections.items():
        values[name] = params.section(name, model)
    assert all(isinstance(line, str) for line in params.unread(train=("seed",)))
    return values


def _sane(values: dict[str, Any]) -> None:
    for value in values.values():
        _plain(value.model_dump() if isinstance(value, Section) else value)


def _plain(value: Any) -> None:
    """Only plain values, and only finite numbers."""
    if isinstance(value, Section):
        value = value.model_dump()
    if isinstance(value, Mapping):
        for key, one in value.items():
            assert type(key) is str
            _plain(one)
    elif isinstance(value, tuple | list):
        for one in value:
            _plain(one)
    else:
        assert value is None or type(value) in (bool, int, float, str), type(value)
        assert not isinstance(value, float) or math.isfinite(value)
        assert not isinstance(value, str) or "\0" not in value


def _nothing(_: object) -> None:
    pass
