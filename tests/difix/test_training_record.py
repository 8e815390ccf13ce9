"""A fixer keeps the record of its training scenes, and is not measured on them."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixers import perturbed, publish, publish_turbo, published_spec, tiny_spec
from small_study import RESERVED, TEST, TUNING, small_study
from tuning import small_fixer, tune_config, write_study

from stages.difix.base_fixer import untuned
from stages.difix.config import BaseConfig, BaseRuntime, TuneConfig
from stages.difix.network.training_record import FILE, TrainingRecord, read_training_record
from stages.difix.tuning.inputs import TuningData, initial_fixer
from stages.difix.weights.evaluation_notes import evaluation_notes
from stages.difix.weights.folders import read_folder, write_folder
from stages.difix.weights.packed import pack
from stages.difix.weights.pkl import read_pkl, write_pkl
from stages.difix.weights.training_leaks import training_leak_errors
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


def trained_fixer(*scenes: Subject) -> Path:
    """The folder of a fixer that was trained on these scenes."""
    fixer, folder = small_fixer(seed=3), Path("elsewhere")
    fixer.training_record = TrainingRecord(scenes)
    write_folder(fixer, folder)
    return folder


def source(name: Path | str) -> BaseConfig:
    return BaseConfig(source=str(name), size="tiny", runtime=BaseRuntime(download=False))


def record_of(name: Path | str) -> TrainingRecord:
    loaded = untuned(source(name), Path("w"), Checkpoint("b", "f", ""), Path("scratch"))
    return loaded.fixer.training_record


def test_record_goes_through_a_folder_and_a_packed_file() -> None:
    folder = trained_fixer(FIGHT, OTHER)
    assert (
        read_folder(folder).training_record == TrainingRecord((FIGHT, OTHER)) == record_of(folder)
    )
    pack(folder, Path("one.safetensors"))
    assert record_of("one.safetensors") == TrainingRecord((FIGHT, OTHER))


def test_record_goes_through_a_pkl_and_adds_to_its_components() -> None:
    fixer = perturbed(published_spec())
    fixer.training_record = TrainingRecord((FIGHT,))
    turbo = publish_turbo(fixer, Path("sd-turbo"))
    write_pkl(fixer, Path("one.pkl"))
    spec = True, "remove degradation", fixer.prompt, "one.pkl"
    assert read_pkl(Path("one.pkl"), turbo, *spec).training_record == TrainingRecord((FIGHT,))
    (turbo / FILE).write_text(json.dumps({"scenes": [], "unknown": ["sd"]}))
    assert read_pkl(Path("one.pkl"), turbo, *spec).training_record == TrainingRecord(
        (FIGHT,), ("sd",)
    )


def test_shipped_and_random_fixers_have_no_training_scenes() -> None:
    for name in ("shipped", "random"):
        assert record_of(name) == TrainingRecord()


def test_record_of_a_foreign_fixer_is_unknown() -> None:
    fixer = perturbed(published_spec())
    publish(fixer, Path("difix_ref"))
    write_pkl(fixer, Path("plain.pkl"))
    publish_turbo(fixer, Path("sd-turbo"))
    found = read_pkl(
        Path("plain.pkl"), Path("sd-turbo"), True, "remove degradation", fixer.prompt, "plain"
    )
    assert found.training_record.unknown == ("plain.pkl",)
    (note,) = found.training_record.notes
    assert note.startswith("the training scenes of plain.pkl are unknown")
    assert read_training_record(Path("difix_ref")).unknown == ("difix_ref",)


def test_own_folder_without_its_record_is_reported() -> None:
    folder = trained_fixer(FIGHT)
    (folder / FILE).unlink()
    (unknown,) = read_folder(folder).training_record.unknown
    assert unknown == "elsewhere (its record taught.json is missing)"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"scenes": [1], "unknown": []}'])
def test_record_that_cannot_be_read_is_an_error(text: str) -> None:
    folder = trained_fixer(FIGHT)
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
def test_overlap_by_people_scene_or_images_is_refused(other: Subject) -> None:
    with pytest.raises(UserError, match="this fixer learnt from"):
        TrainingRecord((OTHER, FIGHT)).refuse_overlap("here", [other], "reserved")
    TrainingRecord((OTHER,)).refuse_overlap("here", [other], "reserved")


def test_tuning_keeps_the_record_of_its_initial_fixer() -> None:
    write_study()
    data = TuningData(layout.dataset(), Path("data/pairs"))
    (subject,) = data.training_record().scenes
    index = read_index(layout.pairs(TUNING))
    digests = {one for images in index.photographs.values() for one in images.values()}
    assert (subject.scene, subject.group, set(subject.photographs)) == (TUNING, "pair00", digests)
    write_folder(small_fixer(), layout.base())
    assert initial_fixer(layout.base(), "").training_record == TrainingRecord()
    assert initial_fixer(
        layout.base(), str(trained_fixer(FIGHT))
    ).training_record == TrainingRecord((FIGHT,))


@pytest.mark.parametrize("scene", [FIGHT, named("hi4d_pair15_hug"), named("HI4D_PAIR2_hug")])
@pytest.mark.parametrize("way", ["base", "init_from"])
def test_tune_refuses_a_fixer_trained_on_a_held_out_scene(
    scene: Subject, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.tune import main

    write_study()
    folder = trained_fixer(scene)
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


def test_base_refuses_a_fixer_trained_on_a_held_out_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.base import main

    folder = trained_fixer(named("hi4d-pair15-hug"))
    params = {"base": source(folder).model_dump(), "study": small_study().model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    monkeypatch.setattr(sys, "argv", ["base"])
    with pytest.raises(UserError, match=r"base\.source: this fixer learnt from pair15"):
        main()
    assert not layout.base().exists()


def test_base_reports_the_training_scenes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.base import main

    folder = trained_fixer(OTHER)
    params = {"base": source(folder).model_dump(), "study": small_study().model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    monkeypatch.setattr(sys, "argv", ["base"])
    main()
    assert "- trained on: hi4d_pair30_hug (pair30)" in (layout.base() / "README.md").read_text()
    (folder / FILE).unlink()
    main()
    assert "note: the training scenes of elsewhere (its record" in capsys.readouterr().out
    assert read_json(layout.base() / FILE)["unknown"] == [
        "elsewhere (its record taught.json is missing)"
    ]


def test_training_scenes_may_not_be_evaluated_except_tuning_scenes() -> None:
    record = TrainingRecord((Subject(TUNING, "pair00"), FIGHT), ("sd-turbo",))
    with pytest.raises(UserError, match="this fixer learnt from the scene hi4d_pair15_fight"):
        evaluation_notes("here", record, RESERVED, Path("absent"), (TUNING,))
    for scene in (TEST, TUNING):
        assert (
            evaluation_notes("here", record, scene, Path("absent"), (TUNING,)) == record.notes != []
        )


def test_check_reads_the_records_of_folders() -> None:
    folder = str(trained_fixer(FIGHT))
    groups = {RESERVED: "pair15", TEST: "pair02", "a_dog": "pair15"}

    def errors(base: str, init_from: str, **values: tuple[str, ...]) -> list[str]:
        study = small_study(**values)
        where: Callable = ".".join
        given = {"base": source(base), "tune": TuneConfig(**{"init_from": init_from})}
        leaks = training_leak_errors(given | {"study": study}, groups, where)
        return [str(one).splitlines()[0] for one in leaks]

    assert errors("shipped", "") == []
    message = "this fixer learnt from the scene hi4d_pair15_fight"
    assert errors(folder, folder) == [f"base.source: {message}", f"tune.init_from: {message}"]
    others = {"reserved_scenes": ("a_dog",), "downstream_scenes": ("a_dog",)}
    (found,) = errors(folder, "", **others)
    assert "pair15, whom both hi4d_pair15_fight and a_dog show" in found


def test_record_changes_nothing_else() -> None:
    """A folder's spec is read as it was written."""
    fixer = perturbed(tiny_spec())
    write_folder(fixer, Path("one"))
    assert read_json(Path("one") / FILE) == {"scenes": [], "unknown": []}
    assert read_folder(Path("one")).spec == fixer.spec
