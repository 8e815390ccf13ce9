"""Stage `base`: the untuned fixer in its place, or nothing."""

import sys
from pathlib import Path

import pytest

from stages.base import main
from stages.difix.weights.folders import read_folder
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import folder_hash

PARAMS = """
base:
  source: {source}
  size: tiny
runtime:
  base:
    download: false
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["base"])
    return tmp_path


def run(source: str) -> Path:
    Path("params.yaml").write_text(PARAMS.format(source=source))
    main()
    return layout.base()


@pytest.mark.parametrize("source", ["shipped", "random"])
def test_fixer_is_written_with_its_card_and_repeats(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = folder_hash(run(source))
    assert {
        "shipped": "5.76 M parameters, with a reference (up to 4 warped into the view)",
        "random": "1.23 M parameters, with a reference (one_way attention)",
    }[source] in capsys.readouterr().out
    assert "before it was tuned" in (layout.base() / "README.md").read_text()
    size = {"shipped": "small", "random": "tiny"}[source]
    assert read_folder(layout.base()).spec.size == size
    assert folder_hash(run(source)) == first


def test_refused_source_leaves_the_former_fixer() -> None:
    before = folder_hash(run("shipped"))
    with pytest.raises(UserError, match="did you mean random"):
        run("randon")
    assert folder_hash(layout.base()) == before
    assert [path.name for path in layout.base().parent.iterdir()] == ["base"]
