"""Any folders of tests run together, in any order: unique names, fixtures alone in conftest."""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from source_tree import ROOT

TESTS = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path.stem != "conftest"]
CONFTESTS = sorted((ROOT / "tests").rglob("conftest.py"))
NAMES = {path.stem: path for path in TESTS}
OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
EVERYWHERE = {ROOT / folder for folder in OPTIONS["pythonpath"]}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


def test_module_names_are_unique() -> None:
    """pytest imports them all at one level, whatever their folders."""
    counts = Counter(path.stem for path in TESTS)
    assert [name for name, count in counts.items() if count > 1] == []
    assert counts.keys() & (set(sys.stdlib_module_names) | {"stages", "conftest"}) == set()


@pytest.mark.parametrize(
    "path", [*TESTS, *CONFTESTS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_imports_lead_to_one_module_from_everywhere(path: Path) -> None:
    """A conftest holds fixtures alone; a helper is beside its users or in a `pythonpath` folder."""
    modules = imported(path)
    assert "conftest" not in modules, "move what tests import into a module of its own name"
    places = {NAMES[name].parent for name in modules & NAMES.keys()}
    assert places <= {path.parent, *EVERYWHERE}, "name the folder in pyproject.toml's pythonpath"


def test_every_folder_has_its_own_fixtures_in_a_run_of_all(tmp_path: Path) -> None:
    """Folders as here, with a conftest each, run last to first with this repository's options."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folders = sorted({path.parent.relative_to(ROOT) for path in TESTS}, reverse=True)
    for number, folder in enumerate(folders):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        fixture = f"import pytest\n\n@pytest.fixture\ndef number():\n    return {number}\n"
        (tmp_path / folder / "conftest.py").write_text(fixture)
        test = f"def test_number(number):\n    assert number == {number}\n"
        (tmp_path / folder / f"test_{number}.py").write_text(test)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *map(str, folders)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert f"{len(folders)} passed" in ended.stdout, ended.stdout + ended.stderr
