"""Names: what passes, what is refused, and with which message."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.run.errors import UserError
from stages.run.settings.names import is_name, name_argument, name_rule

GOOD = ("hi4d_pair15_fight", "pose2sim_4cam", "4cam", "demo-room", "a", "Room", "none", "e5")
BAD = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "a/../b",
    "x/",
    "./x",
    "room.v2",
    "x; touch F; true",
    "*",
    "--help",
    "-rf",
    "_x",
    "~",
    "a\nb",
    "a\n",
    " a",
    "a ",
    "a b",
    "é",
    "\uff21",
    "\u0440\u0430ir",
    "a\0b",
    "${a}",
    "2024",
    "1_000",
    "2024-01-31",
    "1e5",
    "0x1F",
    "0o17",
    "nan",
    "inf",
    "true",
    "False",
    "null",
    "a" * 81,
    2024,
    1.5,
    True,
    None,
    ["a"],
    {"a": 1},
)


@pytest.mark.parametrize("name", GOOD)
def test_names_that_people_give_pass(name: str) -> None:
    assert is_name(name)
    assert name_argument(name) == name
    assert YAML(typ="safe").load(name) == name, "the same text without quotes"


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_what_a_path_a_shell_or_yaml_reads_as_something_else_is_refused(name: object) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_name_is_proposed_in_the_place_of_a_bad_one(name: object) -> None:
    assert is_name(name_rule(name).rpartition("such as ")[2].strip("'"))


def test_bad_name_on_the_command_line_is_an_error_with_the_rule() -> None:
    with pytest.raises(
        UserError, match=r"command line: '\.\./x'\nexpected a name: letters, digits"
    ):
        name_argument("../x")


def test_every_entry_takes_names_alone() -> None:
    """Each `--scene` and `--capture`, also where it is new; `--fixer` is one of two words."""
    options = []
    for path in Path(__file__).resolve().parents[2].glob("stages/*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            first = call.args[0] if isinstance(call, ast.Call) and call.args else None
            if "add_argument" not in ast.unparse(getattr(call, "func", call)):
                continue
            if getattr(first, "value", None) in ("--scene", "--capture"):
                kinds = [ast.unparse(one.value) for one in call.keywords if one.arg == "type"]
                options.append((path.name, kinds))
    assert len(options) > 15
    assert [place for place, kinds in options if kinds != [name_argument.__name__]] == []
