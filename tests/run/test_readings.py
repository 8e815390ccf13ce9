"""Params that are edited while a run reads them."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from stages.run.checkpoint import Checkpoint, forget
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.settings import readings
from stages.run.settings.params import Params, Section

PARAMS = """
train:
  lr: 1.0
  # a comment
  steps: 3
study:
  scenes: [a, b]
  memo: words
scenes:
  a: {lr: 1.0, steps: 1}
  b: {lr: 1.0, steps: 1}
"""
DVC = """
stages:
  train:
    matrix: {scene: [a, b]}
    cmd: python -m stages.train
    params:
    - scenes.${item.scene}
    - study.scenes
    - train
"""


class Rate(Section):
    lr: float
    steps: int


class Study(Section):
    scenes: tuple[str, ...]
    memo: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    Path("params.yaml").write_text(PARAMS)
    Path("dvc.yaml").write_text(DVC)
    return tmp_path


def edit(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))


def run(during: Callable[[], None]) -> None:
    """Run a stage that reads three sections and then calls `during`."""

    def main() -> None:
        params = Params.read()
        params.section("train", Rate)
        params.section("study", Study)
        params.entry("scenes", "a", Rate)
        during()

    launch(main)


EDITS = {
    "a value": ("steps: 3", "steps: 4", "train.steps: 3 -> 4"),
    "a key": ("  steps: 3\n", "", "train.steps: 3 -> 'absent'"),
    "a list": ("[a, b]", "[a]", "study.scenes: ['a', 'b'] -> ['a']"),
    "its entry": ("a: {lr: 1.0", "a: {lr: 2.0", "scenes.a.lr: 1.0 -> 2.0"),
    "a word for a switch": ("lr: 1.0\n", "lr: no\n", "train.lr: 1.0 -> 'no'"),
}


@pytest.mark.parametrize("name", EDITS)
def test_result_of_old_params_is_not_recorded_with_new_ones(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, change = EDITS[name]
    monkeypatch.setenv("DVC_STAGE", "train@a")
    with pytest.raises(SystemExit) as ended:
        run(lambda: edit(old, new))
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert f"params.yaml: edited while this ran: {change}" in errors
    assert "fix: run again" in errors


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another"),
        ("memo: words", "memo: others"),  # which DVC does not record for this stage
        ("b: {lr: 1.0", "b: {lr: 2.0"),  # another item's
    ],
)
def test_edit_of_params_that_the_stage_does_not_read_is_ignored(
    home: Path, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@a")
    run(lambda: edit(old, new))


def test_missing_or_broken_file_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@a")
    texts = ("{", "train: " + "[" * 400, "train: &a [*a]", "train: !!int x", "train: 2001-99-99")
    edits = [partial(Path("params.yaml").write_text, text) for text in texts]
    for during in (*edits, Path("params.yaml").unlink):
        Path("params.yaml").write_text(PARAMS)
        with pytest.raises(SystemExit) as ended:
            run(during)
        assert ended.value.code == 2


def test_run_by_hand_warns_about_edited_params(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(lambda: edit("steps: 3", "steps: 4"))
    errors = capsys.readouterr().err
    assert errors.startswith("WARNING: /")
    assert "train.steps: 3 -> 4; the result was made with the old params" in errors


def test_state_is_kept_when_the_result_is_not_recorded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@a")
    state = Checkpoint("train", "a", "key")

    def during() -> None:
        state.save({"step": 3})
        edit("steps: 3", "steps: 4")
        forget("train", "a")

    with pytest.raises(SystemExit):
        run(during)
    assert state.load() == {"step": 3}
    run(lambda: forget("train", "a"))
    assert state.load() is None


def test_children_read_the_params_of_their_parent(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def during() -> None:
        edit("steps: 3", "steps: 4")
        with readings.params_for_children() as environment, monkeypatch.context() as child:
            for name, value in environment.items():
                child.setenv(name, value)
            steps.append(Params.read().section("train", Rate).steps)
            edit("lr: 1.0\n", "lr: []\n")
            Path(os.environ[readings.PARAMS_ENV]).write_text(PARAMS.replace("steps: 3", "steps: x"))
            with pytest.raises(UserError, match=r"params\.yaml:5  train\.steps"):
                Params.read().section("train", Rate)
        edit("lr: []\n", "lr: 1.0\n")
        edit("steps: 4", "steps: 3")

    run(during)
    assert steps == [3]
    assert list((home / "work").rglob("*.yaml")) == []
