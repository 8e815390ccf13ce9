"""Commands in README, docs and messages exist: make targets, entries with flags, DVC's, params."""

import ast
import itertools
import re
import shlex
from pathlib import Path

import pytest
from documented import COMMAND, COMMANDS, PAGES, commands
from ruamel.yaml import YAML
from source_tree import ENTRIES, MODULES, ROOT, tree

README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="there is no README.md yet")
# Names of commands in docstrings, and what a command is put together from.
FRAGMENTS = {
    "python -m stages.<name>",
    "python -m stages.splat.smoke",
    "dvc exp run -S",
    "dvc exp run --set-param",
    "dvc X X",
}


def of_messages() -> list[str]:
    """Commands that messages of the code name, with X for what is filled in."""
    named = []
    for name in MODULES:
        inner = {id(part) for node in ast.walk(tree(name)) for part in getattr(node, "values", ())}
        for node in ast.walk(tree(name)):
            text = "" if id(node) in inner else text_of(node)
            named += re.findall(r"`((?:make|dvc|python -m stages\.)[^`]*)`", text)
            named += [text] if re.match(r"(dvc|python -m stages\.)", text) else []
    parts = [re.split(r", | &&|; | \(| estimates", text)[0].strip() for text in named]
    whole = [part for part in parts if COMMAND.match(part) and part not in FRAGMENTS]
    return list(dict.fromkeys(whole))


def text_of(node: ast.AST) -> str:
    """The text of a literal, X for its fields; empty for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "X" for part in node.values)
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else ""


OF_MESSAGES = of_messages()


def starting_with(first: str) -> list[str]:
    every = dict.fromkeys([*COMMANDS, *OF_MESSAGES])
    return [command for command in every if command.startswith(first)]


def test_commands_are_found_in_code_only() -> None:
    text = "make no, `make b` and `dvc.yaml`\n```bash\n$ make a  # why\ndvc x \\\n --y; python -m "
    text += "stages.check && ls\ndvc.lock is a file\n```\n"
    assert commands(text) == ["make a", "dvc x   --y", "python -m stages.check", "make b"]
    assert COMMANDS, "README.md shows no command"


@pytest.mark.parametrize("command", starting_with("make"))
def test_make_target_exists(command: str) -> None:
    targets = re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = [word for word in shlex.split(command)[1:] if "=" not in word and word[0] != "-"]
    assert set(words) <= set(targets)


@pytest.mark.parametrize("command", starting_with("python -m stages."))
def test_entry_has_these_flags(command: str) -> None:
    _, _, module, *words = shlex.split(command)
    name = module.removeprefix("stages.")
    assert name in ENTRIES
    source = MODULES[f"stages.{name}"].read_text()
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'"{flag}"' in source or flag == "--help", f"{name} knows no {flag}"
    for path in (word for word in words if word.endswith(".yaml") and "<" not in word):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("command", starting_with("dvc"))
def test_dvc_knows_the_command_and_its_options(command: str) -> None:
    from dvc.cli import parse_args

    words = shlex.split(command)[1:]
    arguments = parse_args(words)
    assert callable(arguments.func)


@pytest.mark.parametrize("command", starting_with("dvc repro"))
def test_stages_that_are_to_run_exist(command: str) -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    words = [word for word in shlex.split(command)[2:] if not word.startswith("-")]
    named = {word.partition("@")[0] for word in words} - {"X", "STAGE", "TARGETS"}
    assert named <= stages.keys()


@pytest.mark.parametrize("command", [command for command in COMMANDS if "-S " in command])
def test_params_that_are_set_exist(command: str) -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    words = shlex.split(command)
    for setting in (after for word, after in itertools.pairwise(words) if word == "-S"):
        node = params
        for key in setting.partition("=")[0].split("."):
            assert key in node, f"{setting}: params.yaml has no {key}"
            node = node[key]


def links() -> list[str]:
    """Targets of links to files of the repository, from its root."""
    targets = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            targets.add((page.parent / target).resolve().relative_to(ROOT).as_posix())
    return sorted(targets)


@pytest.mark.parametrize("path", links())
def test_linked_file_exists(path: str) -> None:
    assert Path(ROOT, path).exists()
