"""Damage done to files and values, for tests that ask whether every reader says so.

A test draws from one `random.Random`, so that a seed and a number name an input. A reader may give
a result or a UserError; `outcome` fails for anything else, and for a reader that does not end.
"""

import copy
import random
import signal
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest

from stages.run.errors import UserError

_LIMIT_S = 10
# What takes the place of a value in JSON; ints and floats where they matter.
ODD = (None, True, "", "x", -1, 0, 1e308, 10**30, [], {}, [None], {"a": 1}, "..", "\0")
ODD_NUMBERS = (0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """The same bytes cut short, flipped, filled with ones, with a part lost or twice, or none."""
    if not data:
        return b"\0"
    at = draw.randrange(len(data))
    end = min(len(data), at + draw.randrange(1, 24))
    flipped = bytearray(data)
    for _ in range(draw.randrange(1, 8)):
        flipped[draw.randrange(len(data))] = draw.randrange(256)
    return draw.choice(
        [
            data[:at], bytes(flipped), data[:at] + b"\xff" * 8 + data[at + 8 :],
            data[:at] + data[end:], data[:end] + data[at:], data[:at] + b"\0" * 8 + data[at + 8 :],
        ]
    )  # fmt: skip


def text_of(data: bytes, draw: random.Random) -> bytes:
    """The same text with one word replaced by an odd one."""
    words = data.split(b" ")
    odd = (b"nan", b"inf", b"-1", b"0", b"1e999", b"x", b"9" * 25, b"", b"\xff", b"\n")
    words[draw.randrange(len(words))] = draw.choice(odd)
    return b" ".join(words)


def value_of(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON value in which one part is lost, replaced or doubled."""
    damaged = copy.deepcopy(value)
    holder, key = draw.choice(_parts(damaged))
    how = draw.randrange(3)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[key] = copy.deepcopy(draw.choice(ODD))
    return damaged


def outcome(read: Callable[[], object], name: str) -> str:
    """`result` or `told`; fails the test for any other end of a reader."""
    try:
        with _limited():
            read()
    except UserError:
        return "told"
    except Exception as error:
        pytest.fail(f"{name}: {type(error).__name__}: {error}")
    return "result"


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) below a JSON value; a list of many is looked at in its first items."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, part in items:
        found.append((value, key))
        if isinstance(part, dict | list) and part:
            found += _parts(part)
    return found


@contextmanager
def _limited() -> Any:
    def ended(*_: object) -> None:
        raise TimeoutError(f"no end in {_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
