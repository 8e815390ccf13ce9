"""`--help` of every entry is instant: nothing heavy is imported before it."""

import json
import subprocess
import sys

import pytest
from source_tree import ENTRIES, ROOT

# Without these packages an entry answers within half a second: benchmarks/commands.py.
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
# One process for all entries: modules stay imported, so every entry after an offender fails too.
HELP = """
import contextlib, importlib, io, json, sys

answers = {}
for name in sys.argv[1].split():
    entry = importlib.import_module("stages." + name)
    before, out = set(sys.modules), io.StringIO()
    sys.argv = [f"stages.{name}", "--help"]
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        entry.main()
    heavy = [module for module in HEAVY if module in sys.modules]
    answers[name] = {"help": out.getvalue(), "heavy": heavy}
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, dict]:
    """The `--help` of each entry, and the heavy packages that were imported by then."""
    ended = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{HELP}", " ".join(ENTRIES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", ENTRIES)
def test_help_is_printed_before_anything_heavy_is_imported(
    name: str, answers: dict[str, dict]
) -> None:
    assert answers[name]["heavy"] == [], "parse the arguments first, import inside main()"
    first = answers[name]["help"].splitlines()[0]
    assert first.startswith("usage:")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_argument_is_explained(name: str, answers: dict[str, dict]) -> None:
    lines = answers[name]["help"].splitlines()
    options = [line for line in lines if line.startswith("  -") or line.startswith("  {")]
    bare = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line in options and "  " not in line.strip() and not following.startswith("      ")
    ]
    assert bare == []
