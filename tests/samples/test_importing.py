"""Datasets of DiFix's form that another program wrote, as samples of the study."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clean_environment import NEW_REPOSITORY, clean_environment
from nvidia_dataset import NvidiaDataset
from PIL import Image
from ruamel.yaml import YAML
from small_samples import PATHS
from tuning import no_weights, small_fixer, tune_config

from stages import manifest, pairs, pairs_import, tune
from stages.commands import check, export
from stages.difix.network.training_record import read_training_record
from stages.difix.tuning.inputs import TuningData
from stages.difix.weights.folders import write_folder
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import read_json
from stages.samples.index import read_index
from stages.samples.manifest import check_dataset, held_out_subjects
from stages.scenes.cameras import Camera
from stages.scenes.images import read_image, write_png
from stages.scenes.scene import write_scene
from stages.scenes.study.config import StudyConfig
from stages.scenes.view import View

ROOT = Path(__file__).resolve().parents[2]
TUNED, TESTED = "lab_walk", "lab_dance"
OWN = {TUNED: {"group": "walkers"}, TESTED: {"group": "dancers"}}
SIZE = (48, 32)
Edit = Callable[[dict[str, Any], Path], object]


def write_image(path: Path, seed: int, size: tuple[int, int] = SIZE) -> str:
    """A random image in the format that the suffix says; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(levels).save(path)
    return str(path)


def write_foreign(folder: Path, seed: int, suffix: str = ".png") -> dict[str, Any]:
    """A dataset of three training and two test samples with relative paths."""
    content: dict[str, Any] = {}
    for split, count in (("train", 3), ("test", 2)):
        entries = content[split] = {}
        for number in range(count):
            entry = {"prompt": "remove degradation"}
            for at, kind in enumerate(("image", "target_image", "ref_image")):
                name = f"{kind}/{split} {number}{suffix}"
                write_image(folder / name, 100 * seed + 10 * number + at + 50 * (split == "test"))
                entry[kind] = name
            entries[f"{split}/{number}"] = entry
    (folder / "dataset.json").write_text(json.dumps(content))
    return content


def write_params(imports: dict[str, Any] | None = None, **study: Any) -> StudyConfig:
    """The repository's params with these imports, and no scenes to learn from."""
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["imports"] = OWN if imports is None else imports
    roles = {"tuning_scenes": [], "tuning_imports": [TUNED]}
    roles |= {"internal_eval_scenes": [], "internal_eval_imports": [TESTED]}
    params["study"] |= roles | study
    params["tune"]["missing_reference"] = "own_render"  # the shipped fixer takes warped ones
    yaml.dump(params, Path("params.yaml"))
    values = {key: params["study"][key] for key in StudyConfig.model_fields}
    return StudyConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def run(monkeypatch: pytest.MonkeyPatch, name: str = TUNED, split: str = "train") -> None:
    monkeypatch.setattr(sys, "argv", ["pairs_import", "--dataset", name, "--split", split])
    pairs_import.main()


def collect(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    run(monkeypatch, TESTED, "test")
    monkeypatch.setattr(sys, "argv", ["manifest"])
    manifest.main()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    """A working folder with two foreign datasets and params, and its study."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    write_foreign(layout.raw(TUNED), 1)
    write_foreign(layout.raw(TESTED), 2)
    return write_params()


def test_a_foreign_dataset_is_tuned_on_as_samples_of_its_own(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect(monkeypatch)
    printed = capsys.readouterr().out
    assert f"{TUNED}: 3 train samples imported from `train`, input " in printed
    assert f"{TESTED}: 2 test samples imported from `test`, input " in printed
    verdict = check_dataset(layout.dataset(), study, PATHS)
    assert verdict.errors == ()
    assert verdict.hash == read_json(layout.manifest_metrics())["verdict"]
    assert dict(verdict.groups_by_role)["tuning_scenes"] == ((TUNED, "walkers"),)
    data = TuningData(layout.dataset(), PATHS.samples_root, layout.scene)
    assert [one.size for one in (*data.train, *data.test)] == [SIZE] * 5
    (subject,) = data.training_record().scenes
    assert (subject.scene, subject.group, len(subject.photographs)) == (TUNED, "walkers", 6)
    (held_out, *_) = [one for one in held_out_subjects(study, PATHS) if one.scene == TESTED]
    assert (held_out.group, len(held_out.photographs)) == ("dancers", 4)
    first = read_index(layout.pairs(TUNED)).pairs[0]
    assert first.camera == "train/0"
    for kind, name in (("image", "image/train 0.png"), ("ref_image", "ref_image/train 0.png")):
        own = layout.pairs(TUNED) / kind / "000000.png"
        assert own.read_bytes() == (layout.raw(TUNED) / name).read_bytes()


def test_images_in_other_formats_keep_their_pixels(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign(layout.raw(TUNED), 3, ".jpg")
    run(monkeypatch)
    own = read_image(layout.pairs(TUNED) / "target_image" / "000001.png")
    theirs = read_image(layout.raw(TUNED) / "target_image" / "train 1.jpg")
    np.testing.assert_array_equal(own, theirs)


def test_ours_opens_in_nvidias_loader_and_comes_back(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exported with absolute paths, read from another folder, and imported again."""
    collect(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["export", "dataset", "--form", "json"])
    export.main()
    exported = tmp_path / "exports" / "dataset.json"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for split, count in (("train", 3), ("test", 2)):
        theirs = NvidiaDataset(exported, split)
        assert len(theirs) == count
        assert theirs[0]["conditioning_pixel_values"].shape[0] == 2
    monkeypatch.chdir(tmp_path)
    again = layout.raw("again")
    again.mkdir()
    shutil.copy(exported, again / "dataset.json")
    shutil.copytree(layout.pairs(TUNED), again / TUNED)
    root = str(layout.pairs(TUNED).absolute().parent)
    write_params({"again": {"group": "walkers", "root": root, "samples": f"{TUNED}__*"}})
    run(monkeypatch, "again")
    both = [read_index(layout.pairs(name)).pairs for name in (TUNED, "again")]
    assert [one.files for one in both[0]] == [one.files for one in both[1]]


def test_absolute_paths_of_another_machine_and_a_pattern_of_ids(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout.raw(TUNED) / "dataset.json"
    content = read_json(path)
    for entry in content["test"].values():
        for kind in ("image", "target_image", "ref_image"):
            entry[kind] = f"/mnt/data/lab/{entry[kind]}"
    path.write_text(json.dumps(content))
    entry = {"group": "walkers", "root": "/mnt/data/lab", "samples": "*/1", "split": "test"}
    write_params({TUNED: entry, TESTED: {"group": "dancers"}})
    run(monkeypatch)
    assert f"{TUNED}: 1 train sample imported from `test`, input " in capsys.readouterr().out
    assert [one.camera for one in read_index(layout.pairs(TUNED)).pairs] == ["test/1"]


@pytest.mark.parametrize(
    ("main", "flag"), [(pairs.main, "--scene"), (pairs_import.main, "--dataset")]
)
def test_the_split_is_never_assumed(
    study: StudyConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[], None],
    flag: str,
) -> None:
    """Of an import for internal evaluation, train samples would be taken silently."""
    monkeypatch.setattr(sys, "argv", ["entry", flag, TESTED])
    with pytest.raises(SystemExit):
        main()
    assert "required: --split" in capsys.readouterr().err
    assert not layout.pairs(TESTED).exists()


def test_a_dataset_may_have_no_references(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (TUNED, TESTED):
        path = layout.raw(name) / "dataset.json"
        content = read_json(path)
        for split in content.values():
            for entry in split.values():
                del entry["ref_image"]
        path.write_text(json.dumps(content))
    collect(monkeypatch)
    data = TuningData(layout.dataset(), PATHS.samples_root)
    assert [one.reference for one in (*data.train, *data.test)] == [None] * 5


def set_kind(kind: str, value: Any) -> Edit:
    return lambda content, folder: content["train"]["train/0"].update({kind: value})


def outside(content: dict[str, Any], folder: Path) -> None:
    write_image(folder.parent / "outside.png", 0)
    content["train"]["train/0"]["image"] = "../outside.png"


def linked_outside(content: dict[str, Any], folder: Path) -> None:
    outside(content, folder)
    (folder / "link.png").symlink_to("../outside.png")
    content["train"]["train/0"]["image"] = "link.png"


def link_to_itself(content: dict[str, Any], folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    content["train"]["train/0"]["image"] = "loop.png"


def other_size(content: dict[str, Any], folder: Path) -> None:
    write_image(folder / "ref_image/train 0.png", 0, (12, 8))


def no_image(content: dict[str, Any], folder: Path) -> None:
    (folder / "image/train 0.png").write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    ("edit", "message", "fix"),
    [
        (outside, "train.train/0.image: ../outside.png: outside of the dataset's", "move the imag"),
        (linked_outside, "link.png: outside of the dataset's folder", "move the images there"),
        (set_kind("image", "/etc/hostname"), "/etc/hostname: outside of the dataset's", "`root`"),
        (set_kind("image", "absent.png"), "absent.png: no such file", "copy the image there"),
        (set_kind("image", 7), "train/0.image: 7", ""),
        (set_kind("image", "a\0b"), "train/0.image: 'a\\x00b'", ""),
        (set_kind("image", "a/" * 3000), "a/a: no path of a file", ""),
        (set_kind("image", "\ud800.png"), "train/0.image: '\\ud800.png': no path of a file", ""),
        (link_to_itself, "loop.png': no path of a file", ""),
        (set_kind("extra", 1), "keys prompt, image, target_image, ref_image, extra", "these keys"),
        (set_kind("prompt", "sharpen"), "'sharpen'", "set manifest.prompt and base.prompt"),
        (other_size, "image 48x32, target_image 48x32, ref_image 12x8", "resize them"),
        (no_image, "not a whole image", "write the image again"),
        (
            set_kind("target_image", "image/train 0.png"),
            "image train 0.png, target_image train 0.png, ref_image train 0.png",
            "name the right ones",
        ),
        (
            lambda content, _: content["train"].update(again=content["train"]["train/1"]),
            "train/1, again are one sample: their files are the same",
            "keep one of them",
        ),
        (
            set_kind("image", "image/train 1.png"),
            "train/0, train/1 have one image, train 1.png, and other targets",
            "name each one's own render",
        ),
        (lambda content, _: content.pop("train"), "no samples in `train`", "write it there"),
        (lambda content, _: content.update(train=[1]), "no samples in `train`", "write it there"),
        (
            lambda content, _: content["train"]["train/0"].pop("ref_image"),
            "1 of 3 samples have no ref_image, such as train/0",
            "add these; or import",
        ),
    ],
)
def test_bad_dataset_is_named_by_check_and_stage(
    study: StudyConfig,
    monkeypatch: pytest.MonkeyPatch,
    edit: Edit,
    message: str,
    fix: str,
) -> None:
    path = layout.raw(TUNED) / "dataset.json"
    content = read_json(path)
    edit(content, layout.raw(TUNED))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as of_stage:
        run(monkeypatch)
    assert message in str(of_stage.value)
    assert fix in str(of_stage.value)
    assert not layout.pairs(TUNED).exists()
    monkeypatch.setattr(sys, "argv", ["check"])
    with pytest.raises(UserError) as of_check:
        check.main()
    assert str(of_stage.value) in str(of_check.value)


def test_ids_that_are_listed_twice_are_named(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON readers keep the last of them without a word."""
    path = layout.raw(TUNED) / "dataset.json"
    text = path.read_text()
    for number in (1, 2):
        text = text.replace(f'"train/{number}"', '"train/0"')
    path.write_text(text.replace('"test/1"', '"test/0"'))
    with pytest.raises(UserError) as caught:
        run(monkeypatch)
    assert str(caught.value).splitlines() == [
        f"{path}: one object holds these keys more than once: 'train/0'",
        "expected each key once",
        "fix: keep one of each in its object: readers take only the last",
    ]


@pytest.mark.parametrize(
    ("text", "fix"), [("{", "correct the file, or write it again"), (None, "write it there")]
)
def test_fix_of_a_broken_file_is_not_that_of_a_missing_one(
    text: str | None, fix: str, study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.raw(TUNED) / "dataset.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        run(monkeypatch)
    assert caught.value.fix.startswith(fix)


def test_one_render_may_have_several_references(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.raw(TUNED) / "dataset.json"
    content = read_json(path)
    other = content["train"]["train/1"]["ref_image"]
    content["train"]["again"] = content["train"]["train/0"] | {"ref_image": other}
    path.write_text(json.dumps(content))
    run(monkeypatch)
    assert len(read_index(layout.pairs(TUNED)).pairs) == 4


def test_absent_dataset_is_named(study: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(layout.raw(TUNED))
    with pytest.raises(UserError, match=r"(?s)lab_walk/dataset.json: no such.*write it there"):
        run(monkeypatch)


def test_a_reference_that_is_the_target_is_refused(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = layout.raw(TUNED)
    target = Image.open(folder / "target_image/train 2.png")
    target.save(folder / "ref_image/train 2.png", compress_level=0)
    with pytest.raises(UserError, match=r"imports.lab_walk  train/2: ref_image is the target"):
        run(monkeypatch)


def test_one_samples_target_may_be_anothers_reference(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = layout.raw(TUNED)
    shutil.copy(folder / "target_image/train 2.png", folder / "ref_image/train 0.png")
    collect(monkeypatch)


def test_samples_that_changed_after_the_import_are_refused(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(monkeypatch)
    write_image(layout.pairs(TUNED) / "image/000001.png", 99)
    (error,) = check_dataset(layout.dataset(), study, PATHS).errors
    assert "image/000001.png has changed" in str(error)


@pytest.mark.parametrize(
    ("imports", "roles", "message"),
    [
        ({TUNED: {"group": "pair15"}}, {}, "lab_walk shows pair15, as the reserved hi4d_pair15"),
        ({TESTED: {"group": "Walkers"}}, {}, "lab_dance shows walkers, as lab_walk in `study.tun"),
        ({"pair07_x": {"group": "pair08"}}, {}, "imports.pair07_x.group: the name pair07_x says"),
        ({}, {"tuning_imports": [TUNED, "lab_wok"]}, "study.tuning_imports.1: no import 'lab_wok'"),
        ({}, {"tuning_imports": [TUNED, TUNED]}, "lab_walk is listed 2 times"),
        ({}, {"tuning_imports": [TUNED, TESTED]}, "lab_dance is also in `study.tuning_imports`"),
        ({"pose2sim_4cam": {"group": "b"}}, {}, "pose2sim_4cam is a scene too"),
        ({TUNED: {}}, {}, "imports.lab_walk.group"),
    ],
)
def test_roles_and_groups_of_imports_are_judged(
    study: StudyConfig,
    monkeypatch: pytest.MonkeyPatch,
    imports: dict[str, Any],
    roles: dict[str, Any],
    message: str,
) -> None:
    write_params(OWN | imports, **roles)
    monkeypatch.setattr(sys, "argv", ["check"])
    with pytest.raises(UserError) as error:
        check.main()
    assert message in str(error.value)


def test_check_accepts_imports_and_names_them(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", "--memo"])
    check.main()
    printed = capsys.readouterr().out
    assert f"tuning_scenes        {TUNED}" in printed
    assert f"## Imported, for DiFix tuning\n\n1. {TUNED}" in printed


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ([], True),
        (["base.source=random", "base.size=small"], True),
        (["base.source=random", "base.size=tiny"], False),
        (["base.source=nvidia/difix_ref"], False),
        (["study.tuning_scenes=[hi4d_pair00_dance]", "study.tuning_imports=[]"], False),
        (["tune.missing_reference=own_render"], False),
    ],
)
def test_a_fixer_of_warped_references_is_not_tuned_on_imports_untold(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, changes: list[str], refused: bool
) -> None:
    words = [word for one in ["tune.missing_reference=error", *changes] for word in ("-S", one)]
    monkeypatch.setattr(sys, "argv", ["check", *words])
    message = ""
    try:
        check.main()
    except UserError as error:  # of the hub too, which is not there
        message = str(error)
    assert ("samples of lab_walk have no references warped into" in message) == refused


def test_ways_of_degrading_act_on_no_import(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noted() -> list[str]:
        words = ["pairs.degradation.sparse=2", "pairs.leave_out=[[4,16]]"]
        monkeypatch.setattr(sys, "argv", ["check", *(w for one in words for w in ("-S", one))])
        check.main()
        lines = capsys.readouterr().out.splitlines()
        return [line.split(": ")[1] for line in lines if line.startswith("note: command line")]

    assert noted() == [
        "command line  pairs.degradation.sparse has no effect",
        "command line  pairs.leave_out has no effect",
    ]
    write_params(tuning_scenes=["hi4d_pair00_dance"])
    assert noted() == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_manifest_refuses_the_group_of_a_reserved_pair(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    """Also where the entry was changed after the import."""
    collect(monkeypatch)
    name = TUNED if split == "train" else TESTED
    write_params(OWN | {name: {"group": "pair16"}})
    monkeypatch.setattr(sys, "argv", ["manifest"])
    with pytest.raises(UserError, match="shows pair16, as the reserved hi4d_pair16_jump"):
        manifest.main()
    run(monkeypatch, name, split)
    monkeypatch.setattr(sys, "argv", ["manifest"])
    with pytest.raises(UserError, match="shows pair16, as the reserved hi4d_pair16_jump"):
        manifest.main()
    verdict = check_dataset(layout.dataset(), write_params(), PATHS)
    assert any("pair16" in str(error) for error in verdict.errors)


def test_images_of_an_import_in_both_roles_are_found(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(
        layout.raw(TUNED) / "target_image/train 1.png",
        layout.raw(TESTED) / "ref_image/test 0.png",
    )
    with pytest.raises(UserError) as refused:
        collect(monkeypatch)
    first = f"{layout.pairs(TUNED)}/target_image/000001.png"
    second = f"{layout.pairs(TESTED)}/ref_image/000000.png"
    message = str(refused.value)
    assert f"{second}  test/0: the same image as {first}  train/1" in message
    assert Path(first).read_bytes() == Path(second).read_bytes()


@pytest.mark.slow
def test_tuning_runs_on_imports_alone_and_records_them(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(monkeypatch)
    write_folder(small_fixer(), layout.base())
    no_weights(layout.WEIGHTS)
    config = tune_config(steps=2, validate_every=2)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["tune"], params["runtime"] = config.model_dump(), {"tune": config.runtime.model_dump()}
    yaml.dump(params, Path("params.yaml"))
    monkeypatch.setattr(sys, "argv", ["tune"])
    tune.main()
    numbers = read_json(layout.tune_metrics())
    assert (numbers["steps"], numbers["data"]) == (2, "samples of another program")
    (subject,) = read_training_record(layout.tuned()).scenes
    assert (subject.scene, subject.group) == (TUNED, "walkers")


@pytest.mark.slow
def test_a_changed_file_reruns_the_import_and_what_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages as dvc.yaml has them, without digests of code."""
    project = tmp_path / "project"
    (project / "data" / "scenes").mkdir(parents=True)
    monkeypatch.chdir(project)
    write_foreign(layout.raw(TUNED), 1)
    write_foreign(tmp_path / "lab", 2)
    layout.raw(TESTED).symlink_to(tmp_path / "lab")
    write_params()
    graph = YAML(typ="safe").load(ROOT / "dvc.yaml")
    names = ("pairs_import", "pairs_import_test", "manifest")
    stages = {name: graph["stages"][name] for name in names}
    for stage in stages.values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith("data/code/")]
    YAML().dump({"vars": graph["vars"], "stages": stages}, Path("dvc.yaml"))
    shutil.copy(ROOT / "names_are_one_level.yaml", ".")
    Path(".gitignore").write_text("/data/\n")

    def run(*words: str) -> str:
        env = clean_environment(PYTHONPATH=str(ROOT), DVC_SITE_CACHE_DIR=str(tmp_path / "site"))
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
        assert not done.returncode, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    for words in NEW_REPOSITORY:
        run(*words)
    printed = run("dvc", "repro")
    assert "3 train samples imported" in printed
    assert "dataset.json: 3 train samples, 2 test samples; no leak" in printed
    assert "up to date" in run("dvc", "status")
    for seed, folder, stage, other in (
        (77, layout.raw(TUNED), f"pairs_import@{TUNED}", f"pairs_import_test@{TESTED}"),
        (78, tmp_path / "lab", f"pairs_import_test@{TESTED}", f"pairs_import@{TUNED}"),
    ):
        changed = folder / "image" / ("test 0.png" if "test" in stage else "train 0.png")
        write_image(changed, seed)
        printed = run("dvc", "repro")
        assert f"Running stage '{stage}'" in printed
        assert "Running stage 'manifest'" in printed
        assert f"Stage '{other}' didn't change" in printed
    write_params(OWN | {TUNED: {"group": "runners"}})
    assert f"pairs_import@{TUNED}" in run("dvc", "status")


@pytest.mark.parametrize("kind", ["image", "target_image", "ref_image"])
def test_an_image_that_is_measured_downstream_is_found_in_other_bytes(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In an import it is a JPEG, in the prepared scene a PNG."""
    structured = np.kron(np.random.default_rng(5).random((6, 8, 3)), np.ones((8, 8, 1)))
    measured = layout.scene("hi4d_pair15_fight")
    path = measured / "frames" / "000001" / "images" / "28.png"
    path.parent.mkdir(parents=True)
    write_png(path, structured.astype(np.float32))
    camera = Camera("28", np.eye(3), np.eye(4), 64, 48)
    views = [View(camera, path, timestamp="000001", role="target")]
    write_scene(measured, {"name": "hi4d_pair15_fight", "group": "pair15"}, views)
    content = read_json(layout.raw(TUNED) / "dataset.json")
    entry = content["train"]["train/0"]
    for other in ("image", "target_image", "ref_image"):
        write_image(layout.raw(TUNED) / entry[other], 900 + len(other), (64, 48))
    entry[kind] = "measured.jpg"
    Image.open(path).save(layout.raw(TUNED) / "measured.jpg", quality=92)
    (layout.raw(TUNED) / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the same image as .*hi4d_pair15_fight"):
        collect(monkeypatch)
