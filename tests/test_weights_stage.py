"""Stage `weights`: data/weights is written whole, and missing weights are reported."""

import sys
from pathlib import Path

import pytest

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import read_json
from stages.weights import main

PARAMS = """
weights:
  nets:
  - alex
  - squeeze
  path: '{path}'
  download: false
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lpips_package: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setattr(sys, "argv", ["weights"])
    Path("params.yaml").write_text(PARAMS.format(path=""))
    return tmp_path


def test_missing_weights_are_a_warning_with_the_remedy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main()
    marker = read_json(layout.WEIGHTS / "weights.json")
    assert [entry["found"] for entry in marker.values()] == [False, False]
    output = capsys.readouterr().err
    assert "WARNING: alex: not found" in output
    assert "alexnet-owt-7be5be79.pth" in output
    assert "dvc repro -f weights" in output


def test_found_weights_are_copied(lpips_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(PARAMS.format(path=lpips_weights))
    main()
    marker = read_json(layout.WEIGHTS / "weights.json")
    assert [entry["from"] for entry in marker.values()] == ["path", "path"]
    for net in marker:
        name = f"{net}.safetensors"
        assert (layout.WEIGHTS / name).read_bytes() == (lpips_weights / name).read_bytes()
    assert "alex: from path, sha256 889a9ed0249f" in capsys.readouterr().out


def test_broken_file_leaves_earlier_weights_alone(workspace: Path) -> None:
    main()
    (workspace / "alexnet-owt-7be5be79.pth").write_bytes(b"cut off")
    Path("params.yaml").write_text(PARAMS.format(path="."))
    with pytest.raises(UserError, match="not a readable weights file"):
        main()
    assert [path.name for path in layout.WEIGHTS.iterdir()] == ["weights.json"]
    assert [path.name for path in layout.DATA.iterdir()] == ["weights"]
