"""The code under stages/, read from its syntax trees without importing it: the imports of each
module, and a digest of the code that can change a result.

The digest leaves out comments, docstrings, formatting and blocks under `if TYPE_CHECKING:`. It is
the same on every Python from 3.11 on, although the trees differ slightly between versions.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.run.errors import UserError

# Hex digits of a file's SHA-256 that make its digest.
DIGITS = 16
# `ctx` follows from a name's position, and `kind` is the u of u"".
_SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class ModuleFacts:
    """Facts of one module's text that depend on no other module."""

    digest: str  # empty for a text without code, as most `__init__.py`
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]  # level, module, and names taken from it
    seeks_files: bool  # reads `__file__`, so files in its folder may be part of it


class Code:
    """The modules below `root`/stages. `known` caches facts by hash of the text."""

    def __init__(self, root: Path = Path(), known: dict[str, ModuleFacts] | None = None):
        self.root = root
        self.known = {} if known is None else known
        self.used: dict[str, ModuleFacts] = {}
        self._facts: dict[str, ModuleFacts] = {}
        self._files: dict[Path, dict[str, str]] = {}  # of `_beside`: some are megabytes

    @cached_property
    def modules(self) -> dict[str, Path]:
        """File of every module, such as `stages.run.files`."""
        paths = sorted((self.root / "stages").rglob("*.py"))
        return {self._name(path): path for path in paths}

    def relative(self, module: str) -> str:
        """A module's file, relative to the root of the repository."""
        return self.modules[module].relative_to(self.root).as_posix()

    def facts(self, module: str) -> ModuleFacts:
        """The facts of a module's text. Raises UserError when it is not valid Python."""
        if module not in self._facts:
            text = self.modules[module].read_bytes()
            key = hashlib.sha256(text).hexdigest()
            if key not in self.known:
                try:
                    self.known[key] = read(text)
                except (SyntaxError, ValueError) as error:  # ValueError: a null byte
                    line = getattr(error, "lineno", None)
                    place = self.relative(module) + (f":{line}" if line else "")
                    raise UserError(
                        place, f"not valid Python: {error}", fix="edit the line"
                    ) from error
            self._facts[module] = self.used[key] = self.known[key]
        return self._facts[module]

    def imports(self, module: str) -> frozenset[str]:
        """Modules that a module imports, also inside functions: the project's and third parties'.

        `from a import b` counts as `a.b` where that is a module of the project.
        """
        modules: set[str] = set()
        for level, base, names in self.facts(module).imports:
            base = self._absolute(module, level, base)
            own = {f"{base}.{name}" for name in names} & self.modules.keys()
            modules |= own
            if not names or len(own) < len(names):
                modules.add(base)
        return frozenset(modules)

    def closure(self, module: str) -> frozenset[str]:
        """A module, the project's modules that it imports, directly or not, and their packages."""
        reached: set[str] = set()
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name in reached or name not in self.modules:
                continue
            reached.add(name)
            waiting += self.imports(name)
            if "." in name:
                waiting.append(name.rpartition(".")[0])
        return frozenset(reached)

    def foreign(self, module: str) -> set[str]:
        """Top-level names of the packages outside the project that a module imports."""
        return {name.partition(".")[0] for name in self.imports(module)} - {"stages"}

    def files(self, module: str) -> dict[str, str]:
        """Digests of the closure by file, sorted: modules with code, and their data files."""
        digests: dict[str, str] = {}
        for name in self.closure(module):
            facts = self.facts(name)
            if facts.digest:
                digests[self.relative(name)] = facts.digest
            if facts.seeks_files:
                digests |= self._beside(self.modules[name].parent)
        return dict(sorted(digests.items()))

    def _beside(self, folder: Path) -> dict[str, str]:
        """Digests of the files in a folder that are not code, such as templates."""
        if folder not in self._files:
            self._files[folder] = {
                path.relative_to(self.root).as_posix(): _short(path.read_bytes())
                for path in folder.iterdir()
                if path.is_file() and path.suffix not in (".py", ".part")
            }
        return self._files[folder]

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        if parts[1:-1] == ("commands",) and parts[-1] != "__init__":
            parts = (parts[0], parts[-1])  # stages/__init__.py puts its folder on the path
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _absolute(self, module: str, level: int, base: str) -> str:
        if not level:
            return base
        package = module.split(".")
        drop = level - (self.modules[module].name == "__init__.py")
        parts = package[: len(package) - drop]
        return ".".join([*parts, base] if base else parts)


def read(text: bytes) -> ModuleFacts:
    """Facts of one module's text. Raises SyntaxError when it is not valid Python."""
    tree = ast.parse(text)
    written = _written(tree)
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    for node in running(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            imports.append((node.level, node.module or "", names))
    digest = "" if written == "Module" else _short(written.encode())
    return ModuleFacts(digest, tuple(imports), "id='__file__'" in written)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, except those of blocks under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if _is_for_types(child):
            yield from (item for part in child.orelse for item in [part, *running(part)])
            continue
        yield child
        yield from running(child)


def _written(value: Any) -> str:
    """A tree as text: the code that Python would run, without its position in the file."""
    if isinstance(value, list):
        return f"[{' '.join(map(_written, value))}]"
    if not isinstance(value, ast.AST):
        # The characters that `repr` escapes differ between versions of Python.
        return ascii(value)
    parts = [type(value).__name__]
    for field in value._fields:
        content = getattr(value, field, None)
        if field == "body" and isinstance(content, list):
            content = list(_effective(value, content))
        elif field == "values" and isinstance(value, ast.JoinedStr):
            content = _pieces(content)
        elif field == "format_spec" and content is not None and not _pieces(content.values):
            continue
        if content is not None and content != [] and field not in _SILENT:
            parts.append(f"{field}={_written(content)}")
    return f"({' '.join(parts)})" if parts[1:] else parts[0]


def _pieces(values: list[ast.expr]) -> list[ast.expr]:
    """Parts of an f-string without empty texts, adjacent ones joined: versions of Python differ."""
    pieces: list[ast.expr] = []
    for value in values:
        if not isinstance(value, ast.Constant):
            pieces.append(value)
        elif pieces and isinstance(pieces[-1], ast.Constant):
            pieces[-1] = ast.Constant(pieces[-1].value + value.value)
        elif value.value:
            pieces.append(value)
    return pieces


def _effective(owner: ast.AST, body: list[ast.stmt]) -> Iterator[ast.stmt]:
    if isinstance(owner, _DOCUMENTED) and body and _is_text(body[0]):
        body = body[1:]
    for statement in body:
        if _is_for_types(statement):
            yield from _effective(statement, statement.orelse)
        else:
            yield statement


def _is_text(node: ast.stmt) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)


def _is_for_types(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    return "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", ""))


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
