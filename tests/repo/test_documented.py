"""Every command of README and docs runs in a test; what they set by `-S` passes `check`."""

import itertools
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from documented import COMMANDS, ELSEWHERE, ON_PROJECT, ON_STUDY, settings, unplaced
from dvc.repo import Repo
from raw_sequences import write_raw_sequence
from source_tree import ROOT

from stages import overlay
from stages.check import judged
from stages.difix.weights import hub
from stages.graph.pipeline import set_params
from stages.run.settings.params import Params

SETTING = [command for command in COMMANDS if settings(command)]
OVERLAYS = [one for one in COMMANDS if re.match(r"python -m stages\.overlay studies/\w", one)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, where a real scene and a checkpoint lie and the hub answers."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "absence", lambda *_, **__: None)
    return tmp_path


def test_every_command_has_a_test_that_runs_it() -> None:
    assert list(unplaced()) == [], "name the test that runs it in tests/documented.py"
    placed = {**ON_PROJECT, **ON_STUDY, **ELSEWHERE}
    assert [command for command in placed if command not in COMMANDS] == []
    for place in set(ELSEWHERE.values()):
        path, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), place


@pytest.mark.parametrize("command", SETTING)
def test_what_it_sets_passes_check(command: str, folder: Path) -> None:
    if "pose2sim_4cam" in command:
        write_raw_sequence(folder / "data/raw/pose2sim_4cam", tuple(range(1, 5)))
    (folder / "model.pkl").touch()
    texts = [text.replace("/path/to/", f"{folder}/") for text in settings(command)]
    _, verdict, errors = judged(Params.read(overrides=texts))
    assert [str(error) for error in errors] == []
    assert verdict is not None


@pytest.mark.parametrize("command", OVERLAYS)
def test_overlay_is_one_command(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "studies", folder / "studies")
    monkeypatch.setattr(sys, "argv", shlex.split(command)[2:])
    before = (folder / "params.yaml").read_text()
    overlay.main()
    assert ((folder / "params.yaml").read_text() == before) == ("--check" in command)
    _, verdict, errors = judged(Params.read())
    assert [str(error) for error in errors] == []
    assert verdict is not None


@pytest.mark.parametrize("command", [one for one in SETTING if one.startswith("dvc exp run ")])
def test_experiment_has_the_stages_that_it_names(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml", "names_are_one_level.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    set_params(tmp_path, settings(command))
    words = shlex.split(command)[3:]
    targets = [
        word for before, word in itertools.pairwise(["", *words]) if "-S" not in (before, word)
    ]
    with Repo.init(no_scm=True) as repo:
        items = {stage.addressing for stage in repo.index.stages}
    stages = items | {item.partition("@")[0] for item in items}
    assert set(targets) <= stages
