"""Numbers in params.yaml: in all sections, infinite and implausible ones are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import pytest
from source_tree import ROOT

from stages.check import CATALOGUES, SECTIONS
from stages.run.settings.params import RUNTIME, Params, plain

PARAMS = Params.read(ROOT / "params.yaml")
Keys = tuple[Any, ...]
# Numbers below 0 say something there: all cores, no clipping, a lens.
BELOW_0 = {"threads", "max_grad_norm", "distortion"}


def numbers(node: Any, keys: Keys = ()) -> Iterator[tuple[Keys, int | float]]:
    """Every number with its place."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, dict | tuple):
            yield from numbers(value, (*keys, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*keys, key), value


ALL = dict(numbers(plain(PARAMS.raw)))
WHOLE = {keys: value for keys, value in ALL.items() if isinstance(value, int)}


def faults(keys: Keys, value: Any) -> list[str]:
    """Errors of params.yaml with another value at one place."""
    first = 1 if keys[0] == RUNTIME else 0
    top = keys[first : first + (2 if keys[0] in CATALOGUES else 1)]
    model = (SECTIONS | CATALOGUES)[top[0]]
    *folders, last = keys
    with changed(reduce(lambda held, key: held[key], folders, PARAMS.raw), last, value):
        return [str(error) for error in PARAMS.check(top, model)[1]]


@contextmanager
def changed(held: Any, key: Any, value: Any) -> Iterator[None]:
    """Replace a value within the block."""
    before, held[key] = held[key], value
    yield
    held[key] = before


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")], ids=str)
def test_no_number_may_be_infinite_or_nan(value: float) -> None:
    passed = [".".join(map(str, keys)) for keys in ALL if not faults(keys, value)]
    assert passed == []


def test_no_whole_number_is_beyond_what_the_libraries_take() -> None:
    passed = [".".join(map(str, keys)) for keys in WHOLE if not faults(keys, 2**40)]
    assert passed == []


def test_no_number_is_below_0_without_a_meaning() -> None:
    passed = {".".join(map(str, keys)) for keys in ALL if not faults(keys, -2)}
    assert {keys for keys in passed if not set(keys.split(".")) & BELOW_0} == set()


@pytest.mark.parametrize("value", [-1, 2**31, 1.0, True])
def test_seeds_that_some_library_refuses_are_refused(value: object) -> None:
    seeds = [keys for keys in WHOLE if keys[-1] == "seed"]
    assert len(seeds) > 10
    assert [keys for keys in seeds if not faults(keys, value)] == []
    assert faults(("study", "seeds"), [value])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("train.steps_scaler", 1e300),
        ("tune.multiple", 2),
        ("vggt.image_px", 520),
        ("tune.losses.gram_crop_px", 31),
        ("compare.bootstrap_draws", 99),
        ("train.eval_steps", [0]),
        ("runtime.train.workers", 0),
        ("train.background", [2.0, 0.0, 0.0]),
        ("demo.width_px", 1_000_000),
        ("demo.samples", 1000),
        ("prepare.height_px", 1_000_000),
        ("difix.batch_size", 0),
        ("show.video.fps", 100_000),
        ("scenes.hi4d_pair00_dance.target_cameras", ["../x"]),
        ("prepare.height_px", -1),
    ],
)
def test_implausible_sizes_and_counts_are_refused(place: str, value: object) -> None:
    errors = faults(tuple(place.split(".")), value)
    assert errors
    assert all(f"  {place}" in error for error in errors)
