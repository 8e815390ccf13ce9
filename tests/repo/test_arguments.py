"""What entries answer to arguments that they do not take, and outside the environment."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ENTRIES, MODULES, ROOT

TAKING = [
    name for name in ENTRIES if "add_override_option" in MODULES[f"stages.{name}"].read_text()
]


def answer(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What an entry says to arguments that it refuses."""
    path = MODULES[f"stages.{name}"]
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"stages.{name}").main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", [one for one in ENTRIES if one not in (*TAKING, "submit")])
def test_entry_that_takes_no_params_says_where_they_are_set(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answer(name, ["one", "-S", "study.seeds=[1]"], monkeypatch, capsys).splitlines()
    is_command = MODULES[f"stages.{name}"].parent.name == "commands"
    experiment = "dvc exp run -S 'study.seeds=[1]'"
    assert told[-1].startswith(f"fix: edit params.yaml, which it reads; `{experiment}`") or (
        not is_command and told[-1].startswith(f"fix: {experiment} {name}; or edit params.yaml")
    )


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in ("submit", "code")][:4])
def test_other_arguments_get_no_such_fix(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "fix:" not in answer(name, ["--no-such-flag"], monkeypatch, capsys)


@pytest.mark.parametrize("is_made", [True, False])
def test_python_without_the_packages_is_answered_in_one_line(is_made: bool, tmp_path: Path) -> None:
    """`-S` leaves out the folders of installed packages, `-E` what PYTHONPATH adds."""
    shutil.copytree(
        ROOT / "stages",
        tmp_path / "stages",
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
    )
    if is_made:
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        (tmp_path / ".venv" / "bin" / "activate").touch()
    for name in ("check", "train", "submit"):
        command = [sys.executable, "-S", "-E", "-m", f"stages.{name}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        before = "" if is_made else "`make setup`, then "
        assert done.stderr == (
            f"{sys.executable}: not the Python of this project's environment; fix: {before}"
            "`. .venv/bin/activate`\n"
        )
        assert (done.returncode, done.stdout) == (2, "")
