"""What the code under stages/ imports, read from its syntax trees without importing it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name_of(path): path for path in sorted((ROOT / "stages").rglob("*.py"))}
ENTRIES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")


@cache
def tree(module: str) -> ast.Module:
    """Syntax tree of a module such as `stages.run.files`."""
    return ast.parse(MODULES[module].read_text())


def relative(module: str) -> str:
    """A module's file, relative to the root of the repository."""
    return MODULES[module].relative_to(ROOT).as_posix()


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that this one imports, also inside functions: own ones and foreign ones.

    Blocks under `if TYPE_CHECKING:` never run and do not count. `from a import b` counts as
    `a.b` where that is a module of ours.
    """
    found: set[str] = set()
    for node in _running_nodes(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else base for name in names}
    return frozenset(found)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".")
    drop = node.level - (MODULES[module].name == "__init__.py")
    parts = package[: len(package) - drop]
    return ".".join([*parts, node.module] if node.module else parts)


def _running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (item for part in child.orelse for item in [part, *_running_nodes(part)])
            continue
        yield child
        yield from _running_nodes(child)


@cache
def closure(module: str) -> frozenset[str]:
    """The module, all of ours that it imports, all that these import, and their packages."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name not in MODULES:
            continue
        found.add(name)
        waiting += imports(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return frozenset(found)


# Packages that are needed nearly whole or not at all are one dep each: DVC writes dvc.lock again
# after every stage, and the time of that grows with its entries.
# Those of pages also hold the templates.
WHOLE = (
    "stages/run",
    "stages/scenes/demo",
    "stages/splat/cpu",
    "stages/splat/gpu",
    "stages/difix/gpu",
    "stages/pages/report",
    "stages/pages/viewer",
)


def code_files(module: str) -> list[str]:
    """The closure as deps of a stage; an `__init__.py` only when it holds anything."""
    files = (relative(name) for name in closure(module) if MODULES[name].read_text().strip())
    return sorted(
        {next((one for one in WHOLE if file.startswith(f"{one}/")), file) for file in files}
    )


def foreign(module: str) -> set[str]:
    """Top-level names of the packages that a module imports and that are not ours."""
    return {name.partition(".")[0] for name in imports(module)} - {"stages"}
