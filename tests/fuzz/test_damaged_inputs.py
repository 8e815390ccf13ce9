"""Thousands of damaged inputs: each is read as something sane, or told of in one message."""

from collections.abc import Callable
from pathlib import Path

import array_inputs
import file_inputs
import fixer_inputs
import foreign_inputs
import image_inputs
import model_inputs
import param_inputs
import pytest
import source_inputs
import weights_inputs
from damage import Subject, try_damaged

from stages.run.errors import UserError

# How many of each kind are tried, and what makes the whole ones in a folder.
KINDS: dict[str, tuple[int, Callable[[Path], list[Subject]]]] = {
    "images": (600, image_inputs.subjects),
    "arrays": (400, array_inputs.subjects),
    "sources": (400, source_inputs.subjects),
    "models": (400, model_inputs.subjects),
    "files": (400, file_inputs.subjects),
    "fixers": (35, fixer_inputs.subjects),
    "gaussians": (100, file_inputs.trained),
    "foreign": (300, foreign_inputs.subjects),
    "weights": (60, weights_inputs.subjects),
    "params": (250, param_inputs.subjects),
    "overrides": (100, param_inputs.overrides),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_input_is_read_or_told_of(kind: str, tmp_path: Path) -> None:
    inputs, prepare = KINDS[kind]
    folder = tmp_path / "inputs"
    folder.mkdir()
    seen = try_damaged(kind, prepare(folder), inputs, tmp_path / "escaped")
    if seen.total() > 1:  # not one that is repeated
        assert min(seen["told"], seen["result"]) > seen.total() // 20, "damage of one kind alone"


def test_there_are_enough_of_every_kind() -> None:
    counts = {kind: inputs for kind, (inputs, _) in KINDS.items()}
    assert sum(counts.values()) >= 2000
    least = {"images": 600, "arrays": 400, "models": 400, "files": 300, "params": 250}
    assert all(counts[kind] >= count for kind, count in least.items())


@pytest.mark.parametrize("end", [None, UserError("a", "b"), ValueError("c"), RecursionError()])
def test_only_a_value_and_a_user_error_pass(tmp_path: Path, end: Exception | None) -> None:
    """And an input that does not is kept, with what repeats it."""
    path = tmp_path / "a"
    path.write_bytes(b"whole")

    def read() -> None:
        if path.read_bytes() != b"whole" and end is not None:
            raise end

    subject = Subject(path, lambda data, draw: draw.randbytes(4), read, lambda found: None)
    if end is None or isinstance(end, UserError):
        seen = try_damaged("kind", [subject], 3, tmp_path / "kept")
        assert seen == {"told" if end else "result": 3}
        return
    with pytest.raises(pytest.fail.Exception, match=r"(?s)3 of 3 kind:.*SPLATFIX_FUZZ=0:2 "):
        try_damaged("kind", [subject], 3, tmp_path / "kept")
    kept = sorted((tmp_path / "kept").iterdir())
    assert [one.name for one in kept] == ["kind_0_0_a", "kind_0_1_a", "kind_0_2_a"]
    assert len({one.read_bytes() for one in kept}) == 3
    assert path.read_bytes() == b"whole"
