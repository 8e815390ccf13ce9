"""Calls that this code must not contain: other YAML dialects, unsafe pickles, shell strings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import ROOT

FOLDERS = ("stages", "tests", "benchmarks", "slurm")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
NO_PICKLE = "no pickles: safetensors, JSON or TSV; others' by an Unpickler with its own find_class"
# What a module may take from pickle, to read files of others without what they name.
RESTRICTED = {"Unpickler", "UnpicklingError"}


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and reason of every forbidden call."""
    restricted = _restricted_bases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if {"yaml", "omegaconf"} & {name.partition(".")[0] for name in names}:
                yield node.lineno, "YAML is read with ruamel, as DVC reads it: `no` and 1e-4 differ"
            taken = {name for alias in node.names for name in (alias.name, alias.asname) if name}
            if "pickle" in names and not taken <= RESTRICTED:
                yield node.lineno, NO_PICKLE
        elif isinstance(node, ast.Name) and node.id == "Unpickler" and node not in restricted:
            yield node.lineno, NO_PICKLE
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "a bare except hides Ctrl-C and the error"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, reason) for reason in _call_faults(node))


def _restricted_bases(tree: ast.AST) -> set[ast.expr]:
    """The bases of classes that decide themselves what a pickle may name."""
    return {
        base
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(getattr(one, "name", "") == "find_class" for one in node.body)
        for base in node.bases
    }


def _call_faults(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
    if name in ("os.system", "os.popen", "eval", "exec"):
        yield f"{name} runs text as a command or as code"
    if options.get("shell", "False") != "False":
        yield "shell=True: pass a list of words"
    if name == "torch.load" and options.get("weights_only") != "True":
        yield "torch.load without weights_only=True runs code from the file"
    if options.get("allow_pickle", "False") != "False":
        yield "allow_pickle=True runs code from the file"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_has_no_forbidden_call(path: Path) -> None:
    is_test = path.is_relative_to(ROOT / "tests")
    places = [
        f"{path.relative_to(ROOT)}:{line}: {why}"
        for line, why in faults(ast.parse(path.read_text()))
        # A test may forge a harmful file, to see it refused.
        if not (is_test and why == NO_PICKLE)
    ]
    assert places == []


@pytest.mark.parametrize(
    "line",
    [
        "import yaml",
        "from yaml import safe_load",
        "from omegaconf import OmegaConf",
        "import pickle",
        "import pickle as Unpickler",
        "from pickle import Unpickler, load",
        "from pickle import Unpickler as Reader",
        "from pickle import Unpickler\nUnpickler(stream).load()",
        "from pickle import Unpickler\nclass Reader(Unpickler):\n    pass",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "os.system('ls')",
        "eval(text)",
        "try:\n    pass\nexcept:\n    pass",
    ],
)
def test_forbidden_line_is_reported(line: str) -> None:
    assert len(list(faults(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from ruamel.yaml import YAML",
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path)",
        "from pickle import Unpickler\nclass Reader(Unpickler):\n"
        "    def find_class(self, module, name):\n        raise ValueError",
        "subprocess.run(['ls', path], check=True)",
        "model.eval()",
    ],
)
def test_harmless_line_is_not_reported(line: str) -> None:
    assert list(faults(ast.parse(line))) == []
