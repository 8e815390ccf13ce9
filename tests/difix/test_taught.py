"""What taught a fixer goes with it, and keeps it from being measured on that."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixers import publish, publish_turbo, published_spec, stirred, tiny_spec
from small_study import RESERVED, TEST, TUNING, small_study
from tuning import small_fixer, tune_config, write_study

from stages.difix.base_fixer import untuned
from stages.difix.config import BaseConfig, TuneConfig
from stages.difix.network.training_record import FILE, TrainingRecord, read_training_record
from stages.difix.tuning.runs import Data, start
from stages.difix.weights.beginnings import training_leak_errors
from stages.difix.weights.folders import read_folder, write_folder
from stages.difix.weights.packed import pack
from stages.difix.weights.pkl import read_pkl, write_pkl
from stages.difix.weights.training_leaks import evaluation_notes
from stages.run import layout
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import read_json
from stages.samples.index import read_index
from stages.scenes.study.overlap import Subject, named

FIGHT = Subject(RESERVED, "pair15", ("ab12",))
OTHER = Subject("hi4d_pair30_hug", "pair30", ("cd34",))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taught_fixer(*scenes: Subject) -> Path:
    """A folder of a fixer that these scenes taught."""
    fixer, folder = small_fixer(seed=3), Path("elsewhere")
    fixer.taught = TrainingRecord(scenes)
    write_folder(fixer, folder)
    return folder


def source(name: Path | str) -> BaseConfig:
    return BaseConfig(source=str(name), size="tiny", download=False)


def based_on(name: Path | str) -> TrainingRecord:
    return untuned(source(name), Path("w"), Checkpoint("b", "f", ""), Path("scratch")).fixer.taught


def test_record_goes_through_a_folder_and_a_packed_file() -> None:
    folder = taught_fixer(FIGHT, OTHER)
    assert read_folder(folder).taught == TrainingRecord((FIGHT, OTHER)) == based_on(folder)
    pack(folder, Path("one.safetensors"))
    assert based_on("one.safetensors") == TrainingRecord((FIGHT, OTHER))


def test_record_goes_through_a_pkl_and_adds_to_its_components() -> None:
    fixer = stirred(published_spec())
    fixer.taught = TrainingRecord((FIGHT,))
    turbo = publish_turbo(fixer, Path("sd-turbo"))
    write_pkl(fixer, Path("one.pkl"))
    told = True, "remove degradation", fixer.prompt, "one.pkl"
    assert read_pkl(Path("one.pkl"), turbo, *told).taught == TrainingRecord((FIGHT,))
    (turbo / FILE).write_text(json.dumps({"scenes": [], "unknown": ["sd"]}))
    assert read_pkl(Path("one.pkl"), turbo, *told).taught == TrainingRecord((FIGHT,), ("sd",))


def test_shipped_and_random_fixers_were_taught_by_nobody() -> None:
    for name in ("shipped", "random"):
        assert based_on(name) == TrainingRecord()


def test_foreign_fixer_is_said_to_be_unknown() -> None:
    fixer = stirred(published_spec())
    publish(fixer, Path("difix_ref"))
    write_pkl(fixer, Path("plain.pkl"))
    publish_turbo(fixer, Path("sd-turbo"))
    found = read_pkl(
        Path("plain.pkl"), Path("sd-turbo"), True, "remove degradation", fixer.prompt, "plain"
    )
    assert found.taught.unknown == ("plain.pkl",)
    (note,) = found.taught.notes
    assert note.startswith("what taught plain.pkl is unknown")
    assert read_training_record(Path("difix_ref")).unknown == ("difix_ref",)


def test_own_folder_without_its_record_is_told_as_such() -> None:
    folder = taught_fixer(FIGHT)
    (folder / FILE).unlink()
    (unknown,) = read_folder(folder).taught.unknown
    assert unknown == "elsewhere (its record taught.json is missing)"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"scenes": [1], "unknown": []}'])
def test_record_that_cannot_be_read_is_an_error(text: str) -> None:
    folder = taught_fixer(FIGHT)
    (folder / FILE).write_text(text)
    with pytest.raises(UserError, match=r"taught\.json"):
        read_folder(folder)


@pytest.mark.parametrize(
    "other",
    [
        named("Hi4D-PAIR015-hug"),
        named("a_dog", "Pair_15"),
        Subject("a_dog", "dogs", ("99", "ab12")),
    ],
)
def test_people_scenes_and_photographs_are_recognised(other: Subject) -> None:
    with pytest.raises(UserError, match="this fixer learnt from"):
        TrainingRecord((OTHER, FIGHT)).refuse("here", [other], "reserved")
    TrainingRecord((OTHER,)).refuse("here", [other], "reserved")


def test_tuning_hands_on_what_it_starts_from() -> None:
    write_study()
    data = Data(layout.dataset())
    (lesson,) = data.taught().scenes
    index = read_index(layout.pairs(TUNING))
    digests = {one for found in index.photographs.values() for one in found.values()}
    assert (lesson.scene, lesson.group, set(lesson.photographs)) == (TUNING, "pair00", digests)
    write_folder(small_fixer(), layout.base())
    assert start(layout.base(), "").taught == TrainingRecord()
    assert start(layout.base(), str(taught_fixer(FIGHT))).taught == TrainingRecord((FIGHT,))


@pytest.mark.parametrize("seen", [FIGHT, named("hi4d_pair15_hug"), named("HI4D_PAIR2_hug")])
@pytest.mark.parametrize("way", ["base", "init_from"])
def test_tune_refuses_to_start_from_a_fixer_that_saw_what_is_measured(
    seen: Subject, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.tune import main

    write_study()
    folder = taught_fixer(seen)
    if way == "base":
        shutil.copytree(folder, layout.base())
    else:
        write_folder(small_fixer(), layout.base())
    config = tune_config(init_from=str(folder) if way == "init_from" else "")
    params = {"tune": config.model_dump(), "study": small_study().model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    monkeypatch.setattr(sys, "argv", ["tune"])
    with pytest.raises(UserError, match="this fixer learnt from"):
        main()
    assert not layout.tuned().exists()


def test_base_refuses_a_fixer_that_saw_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.base import main

    folder = taught_fixer(named("hi4d-pair15-hug"))
    params = {"base": source(folder).model_dump(), "study": small_study().model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    monkeypatch.setattr(sys, "argv", ["base"])
    with pytest.raises(UserError, match=r"base\.source: this fixer learnt from pair15"):
        main()
    assert not layout.base().exists()


def test_base_says_what_it_was_taught_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.base import main

    folder = taught_fixer(OTHER)
    params = {"base": source(folder).model_dump(), "study": small_study().model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    monkeypatch.setattr(sys, "argv", ["base"])
    main()
    assert "- taught by: hi4d_pair30_hug (pair30)" in (layout.base() / "README.md").read_text()
    (folder / FILE).unlink()
    main()
    assert "note: what taught elsewhere (its record" in capsys.readouterr().out
    assert read_json(layout.base() / FILE)["unknown"] == [
        "elsewhere (its record taught.json is missing)"
    ]


def test_what_taught_a_fixer_is_not_evaluated_but_for_tuning_scenes() -> None:
    taught = TrainingRecord((Subject(TUNING, "pair00"), FIGHT), ("sd-turbo",))
    with pytest.raises(UserError, match="this fixer learnt from the scene hi4d_pair15_fight"):
        evaluation_notes("here", taught, RESERVED, (TUNING,))
    for scene in (TEST, TUNING):
        assert evaluation_notes("here", taught, scene, (TUNING,)) == taught.notes != []


def test_check_judges_folders_by_their_records() -> None:
    folder = str(taught_fixer(FIGHT))
    groups = {RESERVED: "pair15", TEST: "pair02", "a_dog": "pair15"}

    def errors(base: str, init_from: str, **values: tuple[str, ...]) -> list[str]:
        study = small_study(**values)
        where: Callable = ".".join
        given = {"base": source(base), "tune": TuneConfig(**{"init_from": init_from})}
        found = training_leak_errors(given | {"study": study}, groups, where)
        return [str(one).splitlines()[0] for one in found]

    assert errors("shipped", "") == []
    told = "this fixer learnt from the scene hi4d_pair15_fight"
    assert errors(folder, folder) == [f"base.source: {told}", f"tune.init_from: {told}"]
    others = {"reserved_scenes": ("a_dog",), "downstream_scenes": ("a_dog",)}
    (found,) = errors(folder, "", **others)
    assert "pair15, whom both hi4d_pair15_fight and a_dog show" in found


def test_tiny_fixer_keeps_its_form() -> None:
    """The record changes nothing else of a folder."""
    fixer = stirred(tiny_spec())
    write_folder(fixer, Path("one"))
    assert read_json(Path("one") / FILE) == {"scenes": [], "unknown": []}
    assert read_folder(Path("one")).spec == fixer.spec
