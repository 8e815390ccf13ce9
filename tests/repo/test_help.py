"""`--help` of every entry is there at once, and `check` stays light."""

import json
import subprocess
import sys

import pytest
from source_tree import ENTRIES, ROOT

# With none of these an entry answers within half a second: benchmarks/commands.py.
HEAVY = (
    "torch",
    "numba",
    "pycolmap",
    "gsplat",
    "trimesh",
    "embreex",
    "skimage",
    "diffusers",
    "numpy",
    "scipy",
    "PIL",
    "dvc",
    "viser",
)
# One process for all entries: what one of them imports stays, so the first offender is told.
HELP = """
import contextlib, importlib, io, json, sys

told = {}
for name in sys.argv[1].split():
    entry = importlib.import_module("stages." + name)
    before, out = set(sys.modules), io.StringIO()
    sys.argv = [f"stages.{name}", "--help"]
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        entry.main()
    heavy = [module for module in HEAVY if module in sys.modules]
    told[name] = {"help": out.getvalue(), "heavy": heavy}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, dict]:
    """What each entry prints for `--help`, and what heavy packages were loaded by then."""
    ended = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{HELP}", " ".join(ENTRIES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", ENTRIES)
def test_help_is_told_before_anything_heavy_is_imported(name: str, told: dict[str, dict]) -> None:
    assert told[name]["heavy"] == [], "parse the arguments first, import inside main()"
    first = told[name]["help"].splitlines()[0]
    assert first.startswith("usage:")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_argument_is_explained(name: str, told: dict[str, dict]) -> None:
    lines = told[name]["help"].splitlines()
    options = [line for line in lines if line.startswith("  -") or line.startswith("  {")]
    bare = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line in options and "  " not in line.strip() and not following.startswith("      ")
    ]
    assert bare == []
