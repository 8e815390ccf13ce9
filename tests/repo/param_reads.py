"""Which parameters the code reads, found in its syntax trees.

The rule that the code keeps, so that this can be found: sections are read by
`Params.section("name", Model)` and `Params.entry("catalogue", name, Model)` with literal names,
and a StudyConfig is always held in a variable, argument or field named `study`. A stage depends
on the whole of a section that its closure reads, on its own entry of a catalogue, and of the
study on the keys that its closure reads, one by one: a change of the memo's text or of another
stage's list must not rerun it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from source_tree import MODULES, closure, imports, relative, tree

from stages.scenes.study import StudyConfig

# What the graph calls an item of a catalogue.
ITEMS = {"scenes": "scene", "captures": "capture"}
STUDY_MODULE = "stages.scenes.study"
STUDY_KEYS = frozenset(StudyConfig.model_fields)


@dataclass(frozen=True)
class Read:
    """One call of a method of Params."""

    method: str  # section, entry or names
    name: str  # of the section or catalogue
    model: str  # name of the config class, empty for `names`
    place: str  # file:line


def reads(module: str) -> list[Read]:
    """Every read of a module. Raises AssertionError where a name is no literal."""
    nodes = list(ast.walk(tree(module)))
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    if not any(alias.name == "Params" for node in sources for alias in node.names):
        return []
    return [_read(module, node) for node in nodes if _method(node)]


def _method(node: ast.AST) -> str:
    names = ("section", "entry", "names")
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return node.func.attr if is_call and node.func.attr in names else ""


def _read(module: str, call: ast.Call) -> Read:
    place = f"{relative(module)}:{call.lineno}"
    first = call.args[0] if call.args else None
    assert isinstance(first, ast.Constant), f"{place}: write the name of the section as a literal"
    model = ast.unparse(call.args[-1]) if len(call.args) > 1 else ""
    return Read(_method(call), first.value, model, place)


def study_keys(module: str) -> set[str]:
    """Keys of the study that a module reads: `study.key`, or a key's name as text."""
    if STUDY_MODULE not in imports(module):
        return set()
    return {key for node in ast.walk(tree(module)) for key in _keys_at(node)} & STUDY_KEYS


def _keys_at(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.Attribute):
        owner = node.value
        name = getattr(owner, "id", getattr(owner, "attr", ""))
        if name == "study" or _method(owner) == "section":
            yield node.attr


def misnamed_studies(module: str) -> list[str]:
    """Places where a StudyConfig is held under another name than `study`."""
    found = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            held = node.annotation is not None and ast.unparse(node.annotation) == "StudyConfig"
            target = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        elif isinstance(node, ast.Assign) and _method(node.value) == "section":
            held = ast.unparse(node.value.args[-1]) == "StudyConfig"
            target = ast.unparse(node.targets[0])
        else:
            continue
        if held and target != "study":
            found.append(f"{relative(module)}:{node.lineno}: {target}")
    return found


def wanted_params(entry: str) -> list[str]:
    """What `params:` of the stage that runs `stages.<entry>` must list."""
    modules = closure(f"stages.{entry}")
    found = {read for module in modules for read in reads(module)}
    wanted = {_param(read) for read in found if (read.method, read.name) != ("section", "study")}
    if any(read.name == "study" for read in found):
        readers = modules - {STUDY_MODULE}
        wanted |= {f"study.{key}" for module in readers for key in study_keys(module)}
    return sorted(wanted)


def _param(read: Read) -> str:
    if read.method != "entry":
        return read.name
    return f"{read.name}.${{item.{ITEMS[read.name]}}}"


def all_reads() -> list[Read]:
    """Reads of the whole code."""
    return [read for module in MODULES for read in reads(module)]
