"""What a module under stages/ defines or passes on is used by code that is no test."""

import ast
from collections.abc import Iterator

from source_tree import MODULES, relative, tree

# Used where their name is not: part.SECTIONS of every part, getattr(monitor, command), and DVC's
# own function, which tests put back.
_EXEMPT = {"SECTIONS", "status", "record", "logs", "cancel", "_clone", "main", "__all__"}


def defined(node: ast.stmt, passed_on: set[str]) -> Iterator[str]:
    """Names that a statement of a module gives it; an imported one if it is in `__all__`."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign():
            names = (inner for target in node.targets for inner in ast.walk(target))
            yield from (one.id for one in names if isinstance(one, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.ImportFrom():
            yield from {one.asname or one.name for one in node.names} & passed_on


def read(node: ast.AST) -> set[str]:
    """Names that a statement reads, not those that it sets."""
    names = (one for one in ast.walk(node) if isinstance(one, ast.Name))
    return {one.id for one in names if isinstance(one.ctx, ast.Load)}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, and those inside its `if` and `try`."""
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            for part in (node.body, node.orelse, getattr(node, "finalbody", [])):
                yield from statements(part)
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)
            yield from (
                ast.Expr(one) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)
            )
        else:
            yield node


def passed_on(body: list[ast.stmt]) -> set[str]:
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def taken() -> set[str]:
    """Names that modules take from others, such as `stages.run.files.file_hash`."""
    names = set()
    for module in MODULES:
        nodes, modules = list(ast.walk(tree(module))), {}
        for node in (one for one in nodes if isinstance(one, ast.ImportFrom)):
            for one in node.names:
                modules[one.asname or one.name] = f"{node.module}.{one.name}"
                names.add(f"{node.module}.{one.name}")
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names.add(f"{modules.get(node.value.id)}.{node.attr}")
    return names


def test_every_name_of_a_module_is_used() -> None:
    used, unused = taken(), []
    for module in MODULES:
        body = list(statements(tree(module).body))
        reads = {node: read(node) for node in body}
        for node in body:
            for name in set(defined(node, passed_on(body))) - _EXEMPT:
                here = any(name in reads[other] for other in body if other is not node)
                if not here and f"{module}.{name}" not in used:
                    unused.append(f"{relative(module)}:{node.lineno} {name}")
    assert len(used) > 1000, "names are found"
    assert not unused, f"delete what only tests use: {', '.join(unused)}"
