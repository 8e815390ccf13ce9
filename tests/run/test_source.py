"""Imports and digests of code, on known texts."""

from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.run.source import Code, read

FILES = {
    "stages/__init__.py": "",
    "stages/entry.py": "import argparse\n"
    "from stages.a.one import name\n"
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
    "stages/a/three.py": '"""Says what it would do."""\n',
    "stages/a/unseen.py": "",
    "stages/a/deep/__init__.py": "",
    "stages/a/deep/four.py": "from ..one import y\n",
}
TEXT = '''"""What it is for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Point:
    """A place."""

    x: float = 0.5  # px

    def told(self, width: int, *, name: "Path | None" = None) -> str:
        """A line.

        >>> Point().told(3)
        """
        # why
        return f"{name} ha" f"s {self.x:>{width}}" + "é\\n" + str(1_000)
'''
# The same on every Python: digests must not depend on one version's trees.
GOLDEN = "90284dfec118313e"


@pytest.fixture
def code(tmp_path: Path) -> Code:
    """A tree of FILES."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Code(tmp_path)


def digest(text: str = TEXT) -> str:
    return read(text.encode()).digest


def test_closure_follows_functions_packages_and_relative_imports(code: Code) -> None:
    assert list(code.files("stages.entry")) == [
        "stages/a/__init__.py",
        "stages/a/deep/four.py",
        "stages/a/one.py",
        "stages/a/two.py",
        "stages/entry.py",
    ]
    assert "stages.a.three" in code.closure("stages.entry"), "it has no code, so it is left out"
    assert code.foreign("stages.entry") == {"argparse", "torch"}
    assert code.foreign("stages.a.one") == {"typing", "numpy"}


def test_digest_is_the_same_on_every_python() -> None:
    assert digest() == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# for no reason"),
        ("  # px", ""),
        ('"""A place."""', '"""Where it is.\n\n    Longer.\n    """'),
        ('"""What it is for."""\n', ""),
        ("width: int, *,", "\n        width: int,\n        *,"),
        ("x: float = 0.5", "x : float=0.50"),
        ("    from pathlib import Path\n", "    from pathlib import Path, PurePath\n"),
        ("1_000", "1000"),
        ('f"{name} ha" f"s {self.x:>{width}}"', "f'{name} has {self.x:>{width}}'"),
    ],
)
def test_equivalent_code_has_the_same_digest(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert digest(TEXT.replace(old, new)) == digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 0.5", "= 0.25"),
        ("1_000", "1_000.0"),
        ("x: float", "x: int"),
        ("width: int", "width: float"),
        ("-> str", "-> object"),
        ("        # why\n", "        width += 1\n"),
        ("*, name", "name"),
        ("self.x:>", "self.x!r:>"),
        ("class Point:", "class Point(tuple):"),
        ("    def told", "    @staticmethod\n    def told"),
        ("return f", "yield f"),
        ("é", "e"),
    ],
)
def test_changed_code_has_another_digest(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert digest(TEXT.replace(old, new)) != digest()


def test_data_files_beside_a_module_that_reads_its_path_count(code: Code) -> None:
    folder = code.root / "stages/a"
    (folder / "page.html").write_text("one")
    (folder / ".page.html.part").write_text("half")
    before = code.files("stages.entry")
    assert "stages/a/page.html" not in before, "nothing of the closure reads files there"
    (folder / "two.py").write_text("PAGE = open(__file__ + '/../page.html')\n")
    with_page = Code(code.root).files("stages.entry")
    assert with_page.keys() - before.keys() == {"stages/a/page.html"}
    (folder / "page.html").write_text("two")
    changed = Code(code.root).files("stages.entry")
    assert {name for name in changed if changed[name] != with_page[name]} == {"stages/a/page.html"}


def test_facts_are_read_once_per_text(code: Code) -> None:
    known: dict = {}
    first = Code(code.root, known).files("stages.entry")
    empty = {key: facts for key, facts in known.items() if not facts.digest}
    assert len(known) == len({text for name, text in FILES.items() if "unseen" not in name})
    assert Code(code.root, empty | known).files("stages.entry") == first


def test_invalid_python_is_reported_with_its_line(code: Code) -> None:
    (code.root / "stages/a/two.py").write_text("x = 1\ny = (\n")
    with pytest.raises(UserError, match=r"stages/a/two.py:2"):
        Code(code.root).files("stages.entry")
