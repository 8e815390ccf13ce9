import io
import textwrap
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.run.errors import UserError
from stages.run.settings.edits import applied, changes
from stages.run.settings.params import Params, plain

TEXT = """\
# The study.
study:
  # a list, and a comment behind it
  scenes:
  - a
  - b
  # on text that is broken
  # over two lines
  note: a long sentence that goes on and on until it is broken, since lines have an end and
    begin anew

  none: []
  # about steps
  steps: 30   # a habit that -S does not survive
train:
  lr: 1e-3
  # nested
  strategy:
    # pruned below
    prune_opa: 0.005
    grid:
    - - 1
      - 2
    - - 3
      - 4

# The last section.
last:
  word: 'no'
"""


def write(folder: Path, name: str, text: str) -> Params:
    """A YAML file as Params."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return Params.read(path)


def overlaid(folder: Path, text: str) -> str:
    """TEXT with an overlay applied."""
    params = write(folder, "params.yaml", TEXT)
    return applied(TEXT, changes(params, write(folder, "overlay.yaml", text)))


@pytest.mark.parametrize(
    ("overlay", "old", "new"),
    [
        ("train: {lr: 2e-5}", "  lr: 1e-3\n", "  lr: 2e-5\n"),
        ("last: {word: yes}", "  word: 'no'\n", "  word: yes\n"),
        ("study: {scenes: [c]}", "  - a\n  - b\n", "  - c\n"),
        ("study: {scenes: []}", "  scenes:\n  - a\n  - b\n", "  scenes: []\n"),
        ("study: {none: ['1', x]}", "  none: []\n", "  none:\n  - '1'\n  - x\n"),
        (
            "train: {strategy: {grid: [[5]]}}",
            "    - - 1\n      - 2\n    - - 3\n      - 4\n",
            "    - - 5\n",
        ),
        (
            "study: {note: short}",
            TEXT[TEXT.index("  note") : TEXT.index("\n  none")],
            "  note: short\n",
        ),
        ("train: {strategy: {prune_opa: 1}}", "    prune_opa: 0.005\n", "    prune_opa: 1\n"),
    ],
)
def test_only_the_lines_of_the_value_change(
    tmp_path: Path, overlay: str, old: str, new: str
) -> None:
    assert TEXT.count(old) == 1
    assert overlaid(tmp_path, overlay) == TEXT.replace(old, new)


def test_comments_inside_a_replaced_list_go_with_it(tmp_path: Path) -> None:
    text = "a:\n  x:\n  - 1\n# at the margin\n  - 2\n      # far to the right\n  y: 3\n"
    params = write(tmp_path, "params.yaml", text)
    edits = changes(params, write(tmp_path, "overlay.yaml", "a: {x: [5]}\n"))
    assert applied(text, edits) == "a:\n  x:\n  - 5\n      # far to the right\n  y: 3\n"


def test_long_text_is_broken_where_dvc_breaks_it(tmp_path: Path) -> None:
    overlay = "a: {b: {x: " + "many words " * 20 + "}}\n"
    text = "a:\n  b:\n    x: few\n"
    params = write(tmp_path, "params.yaml", text)
    result = applied(text, changes(params, write(tmp_path, "overlay.yaml", overlay)))
    written = io.StringIO()
    YAML().dump(YAML().load(result), written)
    assert result == written.getvalue()


def test_comments_of_the_overlay_stay_there(tmp_path: Path) -> None:
    text = """
        study:
          # mine
          scenes:
          - c
          # mine too
          steps: 31
        """
    result = overlaid(tmp_path, text)
    assert "mine" not in result
    assert "  - c\n  # on text that is broken\n" in result


def test_all_changes_together_read_back_as_the_overlay(tmp_path: Path) -> None:
    overlay = {
        "study": {"scenes": ["x", "y", "z"], "none": ["b"], "steps": 5, "note": "word " * 40},
        "train": {"lr": 0.5, "strategy": {"prune_opa": 0.1, "grid": []}},
        "last": {"word": "off"},
    }
    path = tmp_path / "overlay.yaml"
    YAML().dump(overlay, path)
    params = write(tmp_path, "params.yaml", TEXT)
    result = applied(TEXT, changes(params, Params.read(path)))
    again = write(tmp_path, "params.yaml", result)
    assert plain(again.raw) == plain(Params.read(path).raw)
    assert changes(again, Params.read(path)) == []
    for comment in ("# a list", "# over two lines", "# about steps", "# pruned", "# The last"):
        assert comment in result


def test_equal_values_are_no_change_but_other_types_are(tmp_path: Path) -> None:
    params = write(tmp_path, "params.yaml", "a:\n  x: 1e-3\n  y: 1\n  z:\n  - a\n")
    same = write(tmp_path, "same.yaml", "a:\n  x: 0.001\n  y: 1\n  z: [a]\n")
    assert changes(params, same) == []
    other = write(tmp_path, "other.yaml", "a:\n  y: 1.0\n")
    assert [change.keys for change in changes(params, other)] == [("a", "y")]


def test_all_errors_are_reported_with_lines_and_nearest_keys(tmp_path: Path) -> None:
    params = write(tmp_path, "params.yaml", TEXT)
    overlay = """
        trian:
          lr: 1
        train:
          strategy:
            prune_opac: 0.1
          lr:
            value: 3
        last: 5
        study:
          steps: 3
        """
    with pytest.raises(UserError) as caught:
        changes(params, write(tmp_path, "o.yaml", overlay))
    blocks = str(caught.value).replace(f"{tmp_path}/", "").split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "o.yaml:2  trian: params.yaml has no such key",
        "o.yaml:6  train.strategy.prune_opac: params.yaml has no such key",
        "o.yaml:7  train.lr: got {'value': 3}",
        "o.yaml:9  last: got 5",
    ]
    assert "did you mean train?" in blocks[0]
    assert "did you mean prune_opa?" in blocks[1]
