"""Damage done to files and values, for tests that ask whether every reader says so.

A reader may give a result that can be worked with, or a UserError. Anything else is a fault, and so
is a reader that does not end.
"""

import copy
import json
import os
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, camera_fault

Damage = Callable[[bytes, random.Random], bytes]
_LIMIT_S = 30  # a busy machine is slow, and not at its end
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
            data[:at],
            bytes(flipped),
            data[:at] + b"\xff" * 8 + data[at + 8 :],
            data[:at] + data[end:],
            data[:end] + data[at:],
            data[:at] + b"\0" * 8 + data[at + 8 :],
        ]
    )


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


def header_of(data: bytes, draw: random.Random) -> bytes:
    """Safetensors whose header, or JSON that a text in it holds, has one odd part."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if draw.random() < 0.5:
        header = value_of(header, draw)
    else:
        (key,) = header["__metadata__"]
        facts = value_of(json.loads(header["__metadata__"][key]), draw)
        header["__metadata__"][key] = draw.choice([json.dumps(facts)] * 8 + ["[" * 5000, "1"])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@dataclass(frozen=True)
class Subject:
    """A whole file, a way to damage it, what reads it, and what must hold of a result."""

    path: Path
    damage: Damage
    read: Callable[[], Any]
    sane: Callable[[Any], None]  # raises AssertionError
    named: str = ""  # what a complaint must name

    def outcome(self) -> str:
        """`result` or `told`. Raises what the reader raised, for any other end of it."""
        told = None
        try:
            with _limited():
                found = self.read()
        except UserError as error:
            told = str(error)
        if told is not None:
            assert self.named in told
            return "told"
        self.sane(found)
        return "result"


def try_damaged(kind: str, subjects: Sequence[Subject], inputs: int, kept: Path) -> Counter[str]:
    """Damage the subjects by turns; count what became of it: `result` and `told`.

    Fails when anything else came out, and keeps those inputs in the folder `kept`. Each input has
    a seed of its own: `SPLATFIX_FUZZ=<seed>:<number>` tries that one alone, and
    `SPLATFIX_FUZZ=<seed>x<times>` so many times as many, from another seed.
    """
    chosen = os.environ.get("SPLATFIX_FUZZ", "0x1")
    seed, _, rest = chosen.partition(":" if ":" in chosen else "x")
    numbers = [int(rest)] if ":" in chosen else range(inputs * int(rest))
    whole = {subject.path: subject.path.read_bytes() for subject in subjects}
    for subject in subjects:
        assert subject.outcome() == "result", f"{subject.path.name} is whole"
    seen: Counter[str] = Counter()
    escaped = []
    for number in numbers:
        subject = subjects[number % len(subjects)]
        data = subject.damage(whole[subject.path], random.Random(f"{kind} {seed} {number}"))
        subject.path.write_bytes(data)
        try:
            seen[subject.outcome()] += 1
        except Exception as error:
            kept.mkdir(parents=True, exist_ok=True)
            place = kept / f"{kind}_{seed}_{number}_{subject.path.name}"
            place.write_bytes(data)
            at = traceback.extract_tb(error.__traceback__)[-1]
            escaped.append(
                f"SPLATFIX_FUZZ={seed}:{number}  {place}\n"
                f"    {type(error).__name__} at {at.filename}:{at.lineno}: {str(error)[:300]}"
            )
        subject.path.write_bytes(whole[subject.path])
    if escaped:
        pytest.fail(f"{len(escaped)} of {len(numbers)} {kind}:\n" + "\n".join(escaped[:40]))
    assert seen.total() == len(numbers)
    return seen


def sane_cameras(cameras: Iterable[Camera]) -> None:
    """Fail for a camera that is none."""
    for camera in cameras:
        assert camera.K.shape == (3, 3)
        assert camera.cam_from_world.shape == (4, 4)
        assert camera_fault(camera.K, camera.cam_from_world) == "", camera
        assert min(camera.width, camera.height) >= 1


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
