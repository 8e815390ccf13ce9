"""Which parameters the code reads, by its syntax trees.

The code follows rules that make this possible: sections are read by
`Params.section("name", Model)`, one key of a section by `Params.value("name", "key", Model)` and
an entry by `Params.entry("catalogue", name, Model)`, with literal names, and a StudyConfig is
always held in a variable, argument or field named `study`, a StaticConfig in one named `static`. A
stage depends on every section that its closure reads and on its own entry of a catalogue; of
`study` and `static` only on the keys that its closure reads: a change of the memo's text or of
another stage's list must not rerun it.

A stage that makes one item of a list does not depend on the list.

Values in `runtime:` are built with the section that they belong to, and no stage depends on them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from source_tree import MODULES, closure, imports, relative, tree

from stages.run.settings.params import Section
from stages.scenes.demo.config import DemoCaptureConfig, DemoConfig
from stages.scenes.static.config import StaticConfig, StaticDemoConfig
from stages.scenes.study.config import StudyConfig

# Sections that stages depend on key by key, by the name of the variable that holds them.
BY_KEY: dict[str, type[Section]] = {"study": StudyConfig, "static": StaticConfig}
# Sections whose stages each make one item of a list that only dvc.yaml reads. They depend on all
# other keys, so that adding or removing an item makes no other item stale.
MADE: dict[str, tuple[type[Section], str]] = {
    "demo": (DemoConfig, "scenes"),
    "demo_capture": (DemoCaptureConfig, "captures"),
    "static_demo": (StaticDemoConfig, "scenes"),
}
# What the graph calls an item of a catalogue.
ITEMS = {"scenes": "scene", "captures": "capture", "imports": "dataset"}


@dataclass(frozen=True)
class Read:
    """One call of a method of Params."""

    method: str  # section, value, entry or names
    name: str  # of the section or catalogue
    model: str  # name of the config class, empty for `names`
    place: str  # file:line
    key: str = ""  # of a `value`


def reads(module: str) -> list[Read]:
    """Every read of a module. Raises AssertionError where a name is not a literal."""
    nodes = list(ast.walk(tree(module)))
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    if not any(alias.name == "Params" for node in sources for alias in node.names):
        return []
    return [_read(module, node) for node in nodes if _method(node)]


def _method(node: ast.AST) -> str:
    names = ("section", "value", "entry", "names")
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return node.func.attr if is_call and node.func.attr in names else ""


def _read(module: str, call: ast.Call) -> Read:
    place = f"{relative(module)}:{call.lineno}"
    first = call.args[0] if call.args else None
    assert isinstance(first, ast.Constant), f"{place}: write the name of the section as a literal"
    model = ast.unparse(call.args[-1]) if len(call.args) > 1 else ""
    key = call.args[1].value if _method(call) == "value" else ""
    return Read(_method(call), first.value, model, place, key)


def keys_read(module: str, section: str) -> set[str]:
    """Keys of a section that a module reads: `study.key`, or a key's name as text."""
    model = BY_KEY[section]
    if model.__module__ not in imports(module):
        return set()
    texts = {key for node in ast.walk(tree(module)) for key in _keys_at(node, section)}
    return texts & set(model.recipe_keys())


def _keys_at(node: ast.AST, section: str) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.Attribute):
        owner = node.value
        name = getattr(owner, "id", getattr(owner, "attr", ""))
        if name == section or _method(owner) == "section":
            yield node.attr


def misnamed_sections(module: str) -> list[str]:
    """Places where a section of BY_KEY is held under another name than its own."""
    places = []
    names = {model.__name__: name for name, model in BY_KEY.items()}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            model = "" if node.annotation is None else ast.unparse(node.annotation)
            target = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        elif isinstance(node, ast.Assign) and _method(node.value) == "section":
            model = ast.unparse(node.value.args[-1])
            target = ast.unparse(node.targets[0])
        else:
            continue
        if model in names and target != names[model]:
            places.append(f"{relative(module)}:{node.lineno}: {target}")
    return places


def wanted_params(entry: str) -> list[str]:
    """Params that the stage of `stages.<entry>` must list in dvc.yaml."""
    modules = closure(f"stages.{entry}")
    calls = {read for module in modules for read in reads(module)}
    whole = (r for r in calls if not (r.method == "section" and r.name in {*BY_KEY, *MADE}))
    wanted = {_param(r) for r in whole}
    for section in {read.name for read in calls} & MADE.keys():
        model, its_list = MADE[section]
        wanted |= {f"{section}.{key}" for key in model.recipe_keys() if key != its_list}
    for section in BY_KEY:
        if any(read.name == section for read in calls):
            readers = modules - {BY_KEY[section].__module__}
            wanted |= {f"{section}.{key}" for m in readers for key in keys_read(m, section)}
    return sorted(wanted)


def _param(read: Read) -> str:
    if read.method != "entry":
        return f"{read.name}.{read.key}" if read.key else read.name
    return f"{read.name}.${{item.{ITEMS[read.name]}}}"


def all_reads() -> list[Read]:
    """Reads of the whole code."""
    return [read for module in MODULES for read in reads(module)]
