"""What the code under stages/ imports, read from its syntax trees without importing it."""

import ast
from functools import cache
from pathlib import Path

from stages.run.source import Code

ROOT = Path(__file__).resolve().parents[2]
CODE = Code(ROOT)
MODULES = CODE.modules
ENTRIES = sorted(
    name.removeprefix("stages.")
    for name in MODULES
    if name.count(".") == 1 and MODULES[name].name != "__init__.py"
)
relative, foreign = CODE.relative, CODE.foreign
imports, closure = cache(CODE.imports), cache(CODE.closure)


@cache
def tree(module: str) -> ast.Module:
    """Syntax tree of a module such as `stages.run.files`."""
    return ast.parse(MODULES[module].read_text())
