"""The dataset of two tuning scenes and one internal-eval scene, with images of 8 by 8 px."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rooms import CHANGES, room_image
from small_samples import PATHS, write_warped

from stages.manifest import main
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash, read_json, write_json
from stages.samples.index import (
    KINDS,
    SampleIndex,
    SampleRecord,
    metrics,
    read_index,
    warped_kind,
    write_index,
)
from stages.samples.manifest import check_dataset
from stages.scenes.cameras import Camera
from stages.scenes.images import write_png
from stages.scenes.scene import write_scene
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.roles import NO_RESERVE
from stages.scenes.view import View

TUNING = ("hi4d_pair00_dance", "hi4d_pair01_talk")
TEST = ("hi4d_pair02_dance",)
RESERVED = ("hi4d_pair15_fight", "hi4d_pair16_jump")
STUDY: dict[str, Any] = {
    "version": "v0",
    "objective": "a",
    "hypothesis": "b",
    "scenes": [*TUNING, *TEST, *RESERVED],
    "tuning_scenes": [*TUNING],
    "internal_eval_scenes": [*TEST],
    "downstream_scenes": [*RESERVED],
    "reserved_scenes": [*RESERVED],
    "evaluated_scenes": [*RESERVED],
    "methods": ["none"],
    "fixers": [],
    "subject": "none",
    "key_decisions": [],
    "expected_outputs": [],
    "out_of_scope": [],
}
FIRST, SECOND = "hi4d_pair00_dance__000001_28", "hi4d_pair00_dance__000001_64"
Edit = Callable[[dict[str, Any]], object]


def random_image(number: int) -> np.ndarray:
    """An image of its own for every number."""
    return np.random.default_rng(number).random((8, 8, 3), np.float32)


def make_samples(scene: str, split: str, group: str = "") -> SampleIndex:
    """Two targets, 28 and 64, with the image of source camera 4 as their reference."""
    folder, seed = layout.pairs(scene), 1000 * int(scene[9:11])
    shutil.rmtree(folder, ignore_errors=True)
    records = []
    for number, camera in enumerate(("28", "64")):
        name = f"000001_{camera}"
        numbers = {
            "image": seed + 10 + number,
            "target_image": seed + number,
            "ref_image": seed + 9,
        }
        for kind in KINDS:
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, random_image(numbers[kind]))
        files = {kind: file_hash(folder / kind / f"{name}.png") for kind in KINDS}
        psnr = 20.0 + number
        records.append(
            SampleRecord(
                name, camera, "000001", "4", "000001", None, False, "imperfect", psnr, files
            )
        )
    targets = {f"000001/{one.camera}": one.files["target_image"] for one in records}
    sources = {"000001/4": records[0].files["ref_image"]}
    photographs = {"source": sources, "target": targets}
    index = SampleIndex(scene, group or scene[5:11], split, photographs, tuple(records))
    record_index(index)
    return index


def record_index(index: SampleIndex) -> None:
    write_index(layout.pairs(index.scene), index)
    write_json(layout.pairs_metrics(index.scene), metrics(index))


def write_params(manifest: dict[str, Any] | None = None, **changed: Any) -> StudyConfig:
    study = STUDY | changed
    entries = {"source": "demo", "source_cameras": ["4"], "target_cameras": ["28", "64"]}
    params = {
        "study": study,
        "manifest": {"prompt": "remove degradation", "min_psnr": 0.0} | (manifest or {}),
        "scenes": dict.fromkeys([*TUNING, *TEST, *RESERVED, "hi4d_pair15_hug"], entries),
    }
    Path("params.yaml").write_text(json.dumps(params))
    return StudyConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in study.items()})


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    """A working folder with pairs and params, and its study."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["manifest"])
    for scene in TUNING:
        make_samples(scene, "train")
    make_samples(TEST[0], "test")
    return write_params()


def errors_after(edit: Edit, study: StudyConfig) -> list[str]:
    """Messages about the dataset after the stage wrote it and `edit` changed it."""
    main()
    dataset = read_json(layout.dataset())
    edit(dataset)
    layout.dataset().write_text(json.dumps(dataset))
    return [str(error) for error in check_dataset(layout.dataset(), study, PATHS).errors]


def test_dataset_has_difix_format(study: StudyConfig) -> None:
    main()
    dataset = read_json(layout.dataset())
    assert list(dataset) == ["train", "test"]
    assert dataset["train"][FIRST] == {
        "image": "data/pairs/hi4d_pair00_dance/image/000001_28.png",
        "target_image": "data/pairs/hi4d_pair00_dance/target_image/000001_28.png",
        "ref_image": "data/pairs/hi4d_pair00_dance/ref_image/000001_28.png",
        "prompt": "remove degradation",
    }
    assert len(dataset["train"]) == 4
    assert list(dataset["test"]) == ["hi4d_pair02_dance__000001_28", "hi4d_pair02_dance__000001_64"]


def test_verdict_of_the_file_is_that_of_the_stage(study: StudyConfig) -> None:
    main()
    verdict = check_dataset(layout.dataset(), study, PATHS)
    assert verdict.errors == ()
    verdict.enforce()
    known = read_json(layout.manifest_metrics())
    assert known == {"train": 4, "test": 2, "verdict": verdict.hash}
    assert len(verdict.hash) == 64
    first = layout.dataset().read_bytes()
    main()
    assert layout.dataset().read_bytes() == first
    assert read_json(layout.manifest_metrics()) == known


def test_verdict_names_the_images(study: StudyConfig) -> None:
    main()
    first = read_json(layout.manifest_metrics())["verdict"]
    index = read_index(layout.pairs(TUNING[0]))
    path = layout.pairs(TUNING[0]) / "image" / "000001_28.png"
    write_png(path, random_image(77))
    index.pairs[0].files["image"] = file_hash(path)
    record_index(index)
    main()
    assert read_json(layout.manifest_metrics())["verdict"] != first
    write_params(version="v1", subject="other", evaluated_scenes=[])
    changed = read_json(layout.manifest_metrics())
    main()
    assert read_json(layout.manifest_metrics()) == changed


def test_sample_may_be_removed_by_hand(study: StudyConfig) -> None:
    def edit(dataset: dict[str, Any]) -> None:
        del dataset["train"][FIRST]
        dataset["train"][SECOND].pop("ref_image")

    assert errors_after(edit, study) == []


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        (
            "image",
            "data/pairs/hi4d_pair15_fight/image/000001_28.png",
            "hi4d_pair15_fight is in study.reserved_scenes",
        ),
        (
            "target_image",
            "data/pairs/hi4d_pair02_dance/target_image/000001_28.png",
            "hi4d_pair02_dance is in study.internal_eval_scenes",
        ),
        (
            "image",
            "data/pairs/hi4d_pair15_hug/image/000001_28.png",
            "hi4d_pair15_hug has no role in the study",
        ),
        (
            "ref_image",
            "data/pairs/hi4d_pair00_dance/target_image/000001_28.png",
            "it is a target_image",
        ),
        ("image", "data/pairs/hi4d_pair00_dance/image/000009_28.png", "lists no such pair"),
        (
            "ref_image",
            "data/scenes/hi4d_pair00_dance/frames/000001/images/28.png",
            "not a file of data/pairs/<scene>",
        ),
        ("image", "/etc/hostname", "not a file of data/pairs/<scene>"),
        ("image", "../other/data/pairs/hi4d_pair00_dance/image/000001_28.png", "not a file of"),
        ("image", "data/pairs/hi4d_pair00_dance/../image/000001_28.png", "not a file of"),
        ("image", "./data/pairs/hi4d_pair00_dance/image/000001_28.png", "no such pair"),
        ("image", 7, "no path"),
    ],
)
def test_foreign_path_is_refused(study: StudyConfig, kind: str, path: Any, message: str) -> None:
    (found,) = errors_after(lambda dataset: dataset["train"][FIRST].update({kind: path}), study)
    assert found.startswith(f"data/difix/dataset.json  train.{FIRST}.{kind}: {path}: ")
    assert message in found
    assert f"expected {kind} of a pair in study.tuning_scenes: {', '.join(TUNING)}" in found


def test_sample_that_moved_to_the_other_split_is_refused(study: StudyConfig) -> None:
    def edit(dataset: dict[str, Any]) -> None:
        name = "hi4d_pair02_dance__000001_28"
        dataset["train"][name] = dataset["test"].pop(name)

    found = errors_after(edit, study)
    assert len(found) == 3
    assert all("hi4d_pair02_dance is in study.internal_eval_scenes" in error for error in found)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["train"][FIRST].update(extra=1), "ref_image, prompt, extra"),
        (lambda d: d["train"][FIRST].pop("target_image"), "keys image, ref_image, prompt"),
        (lambda d: d["train"].update({FIRST: 3}), "keys 3"),
        (lambda d: d["train"].clear(), "no samples in `train`"),
        (lambda d: d.pop("test"), "no samples in `test`"),
        (lambda d: d.update(val={}), "a split 'val'"),
        (
            lambda d: d["train"][FIRST].update(
                ref_image="data/pairs/hi4d_pair01_talk/ref_image/000001_28.png"
            ),
            "images of several scenes",
        ),
    ],
)
def test_broken_structure_is_reported(study: StudyConfig, edit: Edit, message: str) -> None:
    (found,) = errors_after(edit, study)
    assert message in found


def test_missing_image_is_named(study: StudyConfig) -> None:
    path = layout.pairs(TUNING[1]) / "target_image" / "000001_64.png"
    path.unlink()
    with pytest.raises(UserError, match=rf"(?s)000001_64.target_image: {path}: no such file"):
        main()
    assert not layout.dataset().exists()
    assert not layout.manifest_metrics().exists()


def test_unequal_sizes_in_a_sample_are_reported(study: StudyConfig) -> None:
    write_png(layout.pairs(TUNING[1]) / "ref_image" / "000001_64.png", random_image(5)[:4])
    sizes = "image 8x8, target_image 8x8, ref_image 8x4"
    with pytest.raises(UserError, match=rf"(?s){sizes}.*one size in a sample"):
        main()


def test_changed_image_is_reported(study: StudyConfig) -> None:
    write_png(layout.pairs(TUNING[1]) / "ref_image" / "000001_64.png", random_image(5))
    with pytest.raises(
        UserError, match=r"ref_image/000001_64.png has changed since stage `pairs` wrote it"
    ):
        main()


def test_samples_with_another_digest_than_in_git_are_refused(study: StudyConfig) -> None:
    index = read_index(layout.pairs(TUNING[0]))
    write_index(layout.pairs(TUNING[0]), SampleIndex(**{**vars(index), "pairs": index.pairs[:1]}))
    with pytest.raises(
        UserError, match=r"(?s)not the pairs that metrics/pairs/.*json was written for"
    ):
        main()


def test_missing_pairs_of_several_scenes_are_all_named(study: StudyConfig) -> None:
    for scene in (TUNING[1], TEST[0]):
        (layout.pairs(scene) / "pairs.json").unlink()
    with pytest.raises(UserError, match=rf"(?s){TUNING[1]}/pairs.json: no such.*{TEST[0]}/pairs"):
        main()


def test_samples_of_the_other_split_are_refused(study: StudyConfig) -> None:
    make_samples(TEST[0], "train")
    with pytest.raises(UserError, match=rf"dvc repro pairs_test@{TEST[0]}"):
        main()


@pytest.mark.parametrize(
    ("role", "scenes", "message"),
    [
        ("tuning_scenes", [*TUNING, RESERVED[0]], "tuning_scenes.*: hi4d_pair15_fight is reserved"),
        ("tuning_scenes", ["hi4d_pair15_hug"], "shows pair15, as the reserved hi4d_pair15_fight"),
        ("internal_eval_scenes", ["hi4d_pair15_hug"], "shows pair15, as the reserved"),
        ("tuning_scenes", [*TUNING, *TEST], "hi4d_pair02_dance is also in `study.tuning_scenes`"),
    ],
)
def test_leak_in_the_study_is_refused(
    study: StudyConfig, role: str, scenes: list[str], message: str
) -> None:
    split = "test" if role == "internal_eval_scenes" else "train"
    for scene in scenes:
        if scene not in (*TUNING, *TEST):
            make_samples(scene, split)
    changed = write_params(**{role: scenes})
    with pytest.raises(UserError, match=message):
        main()
    layout.dataset().parent.mkdir(parents=True)
    layout.dataset().write_text(json.dumps({"train": {}, "test": {}}))
    told = "\n".join(str(error) for error in check_dataset(layout.dataset(), changed, PATHS).errors)
    assert message.rpartition(".*: ")[2] in told


def test_group_of_the_samples_counts(study: StudyConfig) -> None:
    """A scene under another name still has the group that it was prepared with."""
    make_samples(TEST[0], "test", group="pair00")
    with pytest.raises(UserError, match=r"(?s)group pair00.*expected pair02, as in `scenes:`"):
        main()
    layout.dataset().parent.mkdir(parents=True)
    layout.dataset().write_text(json.dumps({"train": {}, "test": {}}))
    told = [str(error) for error in check_dataset(layout.dataset(), study, PATHS).errors]
    assert any("hi4d_pair02_dance shows pair00, as hi4d_pair00_dance" in error for error in told)


def test_photograph_in_both_splits_is_refused(study: StudyConfig) -> None:
    index = read_index(layout.pairs(TEST[0]))
    copied = read_index(layout.pairs(TUNING[0])).photographs["source"]["000001/4"]
    index.photographs["source"]["000001/52"] = copied
    record_index(index)
    message = "000001/52: the same image as data/scenes/hi4d_pair00_dance  000001/4"
    with pytest.raises(UserError, match=message):
        main()
    layout.dataset().parent.mkdir(parents=True)
    layout.dataset().write_text(json.dumps({"train": {}, "test": {}}))
    told = [str(error) for error in check_dataset(layout.dataset(), study, PATHS).errors]
    assert any(message in error for error in told)


def test_photograph_that_is_measured_downstream_is_refused(study: StudyConfig) -> None:
    folder = layout.scene(RESERVED[0])
    path = folder / "frames" / "000001" / "images" / "28.png"
    path.parent.mkdir(parents=True)
    shutil.copyfile(layout.pairs(TUNING[0]) / "ref_image" / "000001_28.png", path)
    camera = Camera("28", np.eye(3), np.eye(4), 8, 8)
    views = [View(camera, path, timestamp="000001", role="target")]
    write_scene(folder, {"name": RESERVED[0], "group": "pair15"}, views)
    with pytest.raises(UserError, match=r"(?s)28.png: the same image as .*pair00_dance"):
        main()


def test_note_names_scenes_that_are_not_prepared(
    study: StudyConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    main()
    assert f"note: not prepared, so not compared with the pairs: {', '.join(RESERVED)}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(("kind", "camera"), [("ref_image", "28"), ("target_image", "4")])
def test_image_of_the_wrong_role_is_refused(study: StudyConfig, kind: str, camera: str) -> None:
    """A target's image as reference, or a source's as target, even if all digests agree."""
    index = read_index(layout.pairs(TUNING[0]))
    role = "target" if camera == "28" else "source"
    folder = layout.pairs(TUNING[0])
    other = "target_image" if role == "target" else "ref_image"
    shutil.copyfile(folder / other / "000001_28.png", folder / kind / "000001_64.png")
    index.pairs[1].files[kind] = index.photographs[role][f"000001/{camera}"]
    record_index(index)
    with pytest.raises(UserError, match=rf"000001_64: {kind} is no"):
        main()


def test_filter_drops_poor_training_samples(study: StudyConfig) -> None:
    write_params(manifest={"min_psnr": 20.5})
    main()
    dataset = read_json(layout.dataset())
    assert [name.rpartition("_")[2] for name in dataset["train"]] == ["64", "64"]
    assert len(dataset["test"]) == 2
    write_params(manifest={"min_psnr": 30.0})
    with pytest.raises(UserError, match=r"(?s)30.0 dB leaves none of 4 pairs.*at most 21.0 dB"):
        main()


@pytest.mark.parametrize("role", ["tuning_scenes", "internal_eval_scenes"])
def test_empty_split_is_refused(study: StudyConfig, role: str) -> None:
    write_params(**{role: []})
    with pytest.raises(UserError, match=rf"study.{role}: no pairs"):
        main()


def test_thousands_of_missing_images_are_reported_briefly(study: StudyConfig) -> None:
    def edit(dataset: dict[str, Any]) -> None:
        dataset["train"] |= {str(k): dict(dataset["train"][FIRST], image=f"{k}") for k in range(50)}

    found = errors_after(edit, study)
    assert len(found) == 21
    assert "30 more errors" in found[-1]


def write_room(scene: str, people: int, change: str = "") -> None:
    """A prepared scene of one target camera, with its image perhaps changed."""
    folder = layout.scene(scene)
    path = folder / "frames" / "000001" / "images" / "28.png"
    path.parent.mkdir(parents=True)
    image = room_image(1, people)
    image = CHANGES[change](image) if change else image
    image.save(path)
    camera = Camera("28", np.eye(3), np.eye(4), *image.size)
    views = [View(camera, path, timestamp="000001", role="target")]
    write_scene(folder, {"name": scene, "group": scene[5:11]}, views)


@pytest.mark.parametrize("scene", [TUNING[1], TEST[0]])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_image_of_a_measured_scene_is_refused(
    study: StudyConfig, scene: str, change: str
) -> None:
    write_room(RESERVED[1], people=11)
    write_room(scene, people=11, change=change)
    with pytest.raises(UserError) as caught:
        main()
    told = str(caught.value)
    assert told.startswith(f"data/scenes/{scene}/frames/000001/images/28.png: the same image")
    assert f"as data/scenes/{RESERVED[1]}/frames/000001/images/28.png" in told
    assert f"1 of {scene} are {RESERVED[1]}'s, encoded, cropped or lit anew" in told
    assert not layout.dataset().exists()


def test_other_people_in_the_same_room_pass(study: StudyConfig) -> None:
    for number, scene in enumerate((*TUNING, *TEST, *RESERVED)):
        write_room(scene, people=10 + number)
    main()
    assert check_dataset(layout.dataset(), study, PATHS).errors == ()


def test_changed_image_in_samples_alone_is_refused(study: StudyConfig) -> None:
    """The dataset's own images count, whatever data/scenes has."""
    main()
    write_room(RESERVED[1], people=11)
    write_room(TUNING[0], people=12)
    folder, index = layout.pairs(TUNING[0]), read_index(layout.pairs(TUNING[0]))
    first = index.pairs[0]
    write_png(folder / "image" / f"{first.name}.png", np.zeros((240, 180, 3), np.float32))
    CHANGES["jpeg 50"](room_image(1, 11)).save(folder / "target_image" / f"{first.name}.png")
    room_image(1, 13).save(folder / "ref_image" / f"{first.name}.png")
    for kind in KINDS:
        first.files[kind] = file_hash(folder / kind / f"{first.name}.png")
    index.photographs["target"]["000001/28"] = first.files["target_image"]
    index.photographs["source"]["000001/16"] = first.files["ref_image"]
    record_index(index)
    (error,) = check_dataset(layout.dataset(), study, PATHS).errors
    assert error.where == folder / "target_image" / f"{first.name}.png"
    assert check_dataset(layout.dataset(), study, PATHS, by_content=False).errors == ()


def test_note_on_an_empty_reserve(study: StudyConfig, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(reserved_scenes=[])
    main()
    assert f"note: {NO_RESERVE}" in capsys.readouterr().out


def test_group_may_be_spelled_otherwise_than_in_the_catalogue(study: StudyConfig) -> None:
    make_samples(TEST[0], "test", group="Pair-02 ")
    main()


def with_warped(scene: str = TUNING[0], cameras: tuple[str, ...] = ("4",)) -> None:
    """Record warped images of cameras beside the samples of a scene."""
    folder = layout.pairs(scene)
    records = []
    for one in read_index(folder).pairs:
        write_warped(one.path(folder, "image"), len(cameras))
        kinds = [warped_kind(number + 1) for number in range(len(cameras))]
        files = {kind: file_hash(one.path(folder, kind)) for kind in kinds}
        records.append(replace(one, files={**one.files, **files}, warped=cameras))
    record_index(replace(read_index(folder), pairs=tuple(records)))


def test_warped_images_count_for_the_verdict_and_not_in_difix_format(study: StudyConfig) -> None:
    main()
    before = check_dataset(layout.dataset(), study, PATHS)
    content = layout.dataset().read_bytes()
    with_warped()
    main()
    after = check_dataset(layout.dataset(), study, PATHS)
    assert layout.dataset().read_bytes() == content
    assert not after.errors
    assert after.hash != before.hash
    assert read_index(layout.pairs(TUNING[0])).pairs[0].warped == ("4",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "warped_1/000001_28.png").unlink(), "no such file"),
        (
            lambda folder: write_png(folder / "warped_1/000001_28.png", random_image(7)),
            "has changed since stage `pairs` wrote it",
        ),
        (
            lambda folder: write_warped(folder / "image/000001_28.png", 2),
            "warped_2/000001_28.png: the index lists no such image",
        ),
    ],
)
def test_warped_images_are_those_of_the_index(
    study: StudyConfig, change: Callable[[Path], object], message: str
) -> None:
    with_warped()
    main()
    change(layout.pairs(TUNING[0]))
    errors = check_dataset(layout.dataset(), study, PATHS).errors
    assert any(message in str(one) and "train." + FIRST in str(one) for one in errors)


@pytest.mark.parametrize("cameras", [("28",), ("4", "99")])
def test_warped_images_are_of_other_cameras_of_the_scene(
    study: StudyConfig, cameras: tuple[str, ...]
) -> None:
    main()
    with_warped(cameras=cameras)
    errors = [str(one) for one in check_dataset(layout.dataset(), study, PATHS).errors]
    assert any(f"camera {cameras[-1]}'s image is warped into it" in one for one in errors)
