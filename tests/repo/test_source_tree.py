"""The import reader itself, on trees whose closure is known."""

from pathlib import Path

import pytest
import source_tree

FILES = {
    "stages/__init__.py": "",
    "stages/entry.py": "import argparse\n"
    "from stages.a import one\n"
    "def main():\n"
    "    from stages.a.two import name\n"
    "    import torch.nn\n",
    "stages/a/__init__.py": "from . import three\n",
    "stages/a/one.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n"
    "    from stages.a import unseen\n"
    "else:\n"
    "    import numpy\n",
    "stages/a/two.py": "from .deep.four import x\n",
    "stages/a/three.py": "",
    "stages/a/unseen.py": "",
    "stages/a/deep/__init__.py": "",
    "stages/a/deep/four.py": "from ..one import y\n",
}


@pytest.fixture
def small_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FILES in place of the repository."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(source_tree, "ROOT", tmp_path)
    paths = [tmp_path / name for name in FILES]
    monkeypatch.setattr(
        source_tree, "MODULES", {source_tree._name_of(path): path for path in paths}
    )
    cached = (source_tree.tree, source_tree.imports, source_tree.closure)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("small_tree")
def test_closure_follows_functions_packages_and_relative_imports() -> None:
    assert source_tree.code_files("stages.entry") == [
        "stages/a/__init__.py",
        "stages/a/deep/four.py",
        "stages/a/one.py",
        "stages/a/two.py",
        "stages/entry.py",
    ]
    assert "stages.a.three" in source_tree.closure("stages.entry"), "empty, so no dep"
    assert source_tree.foreign("stages.entry") == {"argparse", "torch"}
    assert source_tree.foreign("stages.a.one") == {"typing", "numpy"}
