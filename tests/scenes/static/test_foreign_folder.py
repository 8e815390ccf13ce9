"""Static scenes as a user has them, with the shared folder of another program or without one."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from user_trees import SUBSETS, write_scene, write_shared

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.run.process.processes import Process
from stages.scenes.cameras import Camera
from stages.scenes.images import read_image
from stages.scenes.poses.colmap_rigs import read_rig_model
from stages.scenes.static.config import StaticConfig, StaticRuntime
from stages.scenes.static.foreign_folder import is_foreign
from stages.scenes.static.prepare import prepare
from stages.scenes.static.shared_folder import SharedFolder

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("static")]

STATIC = StaticConfig(
    lf_inner=1, peak_threshold=0.003, ratio_test=0.85, max_reprojection_error_px=2.0
)
AS_IT_IS = STATIC.model_copy(update={"skip_vggt": True})
FORCED = STATIC.model_copy(update={"runtime": StaticRuntime(force=True)})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Camera]]:
    """A scene in a user's layout, and its true cameras; tests copy it."""
    folder = tmp_path_factory.mktemp("dataset") / "dog"
    return folder, write_scene(folder, "static_pair02_talk")


@pytest.fixture
def scene(tree: tuple[Path, dict[str, Camera]], tmp_path: Path) -> Path:
    """A copy of the scene without a shared folder."""
    return Path(shutil.copytree(tree[0], tmp_path / "dog"))


@pytest.fixture
def foreign(scene: Path, tree: tuple[Path, dict[str, Camera]]) -> Path:
    """static/shared of another program in the scene."""
    return write_shared(scene, tree[1])


def hashes(folder: Path, but: str = "splatfix") -> dict[str, str]:
    """Hash of every file below a folder, without those in folders of one name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder): path for path in files}
    return {str(name): file_hash(path) for name, path in named.items() if but not in name.parts}


def test_scene_as_the_user_has_it_is_registered(
    scene: Path, tree: tuple[Path, dict[str, Camera]]
) -> None:
    before = hashes(scene)
    metrics, _ = prepare(scene / "static", scene / "static" / "shared", STATIC)
    assert metrics["registered"] == metrics["images"] == 1 + 3 + 2 + 9 + 4
    shared = SharedFolder.of(scene / "static" / "shared")
    cameras, _ = read_rig_model(shared.folder / "sparse" / "0")
    assert cameras.keys() == tree[1].keys()
    mapping = json.loads((shared.folder / "metadata" / "mapping.json").read_text())
    assert mapping["eval__frame_00001.png"]["source"] == "iphone-eval/images/frame_00001.png"
    assert mapping["stereo__stereo_left.png"]["source"] == "stereo_left.png"
    kept = hashes(scene)
    assert {name: kept[name] for name in before} == before
    assert not prepare(scene / "static", shared.folder, STATIC)[1]
    frame = scene / "iphone-eval" / "images" / "frame_00002.png"
    shutil.copyfile(frame.with_name("frame_00001.png"), frame)
    assert prepare(scene / "static", shared.folder, STATIC)[1], "an eval frame changed"


@pytest.mark.parametrize("mode", ["hardlink", "symlink"])
def test_images_are_linked_with_the_pixels_of_copies(
    scene: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    static, copied, linked = scene / "static", scene / "copied", scene / "linked"
    wide = static / "wide.png"
    pinhole = STATIC.model_copy(update={"lens_model": "pinhole"})
    prepare(static, copied, pinhole)
    prepare(static, linked, pinhole, copy_mode=mode)
    assert f"19 of 19 images are {mode}s" in caplog.text
    for path in sorted(copied.rglob("*.png")):
        other = linked / path.relative_to(copied)
        assert np.array_equal(read_image(path), read_image(other))
    for name in ("images/mono__wide.png", "subsets/monocular/images/mono__wide.png"):
        assert (linked / name).samefile(wide)
        assert (linked / name).is_symlink() == (mode == "symlink")
        assert not (copied / name).samefile(wide)
    assert not prepare(static, linked, pinhole, copy_mode=mode)[1]
    half = pinhole.model_copy(update={"lf_downscale": 2})
    prepare(static, linked, half, copy_mode=mode)
    assert "10 of 19 images" in caplog.text, "shrunk views cannot be links"
    view = linked / "subsets" / "lightfield" / "images" / "lf__02_02.png"
    assert not view.is_symlink()
    assert read_image(view).shape == (96, 128, 3)
    prepare(static, linked, STATIC, copy_mode=mode)
    assert "9 of 19 images" in caplog.text, "undistorted images cannot be links"


def test_without_skip_vggt_it_is_refused(foreign: Path) -> None:
    assert is_foreign(foreign)
    before = hashes(foreign)
    with pytest.raises(UserError, match="was prepared by another program") as raised:
        prepare(foreign.parent, foreign, STATIC)
    for words in (str(foreign), "SKIP_VGGT=1", "PREP_ROOT", "FORCE=1"):
        assert words in str(raised.value)
    assert hashes(foreign) == before
    with pytest.raises(UserError, match="SKIP_VGGT=1"):
        SharedFolder.of(foreign)


@pytest.mark.parametrize("force", [False, True])
def test_with_skip_vggt_it_is_used_and_left_alone(foreign: Path, force: bool) -> None:
    before = hashes(foreign)
    runtime = StaticRuntime(force=force)
    static = AS_IT_IS.model_copy(update={"runtime": runtime})
    metrics, rebuilt = prepare(foreign.parent, foreign, static)
    assert rebuilt
    assert metrics["registered"] == metrics["images"] == 19
    assert hashes(foreign) == before
    shared = SharedFolder.of(foreign)
    assert shared.folder == foreign / "splatfix"
    for kind, prefix in SUBSETS.items():
        assert hashes(shared.subset(kind) / "images") == hashes(
            foreign / "subsets" / kind / "images"
        )
        model = pycolmap.Reconstruction(shared.subset(kind) / "sparse" / "0")
        assert {image.name[: len(prefix)] for image in model.images.values()} == {prefix}
        assert (foreign / "splits" / f"{kind}.txt").read_text().split() == sorted(
            (shared.folder / "splits" / f"{kind}.txt").read_text().split(),
            key=(foreign / "splits" / f"{kind}.txt").read_text().split().index,
        )
    for kind in STATIC.cameras:
        assert hashes(shared.masks(kind)) == hashes(foreign / "covisible" / kind)
        assert shared.mask(kind, "eval__frame_00001.png").is_file()
        theirs = foreign / "alignments" / f"{kind}_to_eval.npz"
        assert file_hash(shared.alignment(kind)) == file_hash(theirs)
    assert prepare(foreign.parent, foreign, static)[1] == force
    image = foreign / "subsets" / "stereo" / "images" / "stereo__stereo_left.png"
    shutil.copyfile(image.with_name("stereo__stereo_right.png"), image)
    assert prepare(foreign.parent, foreign, AS_IT_IS)[1], "it changed"


def test_force_moves_it_aside(foreign: Path) -> None:
    before = hashes(foreign)
    (foreign.parent / "shared.backup1").mkdir()
    prepare(foreign.parent, foreign, FORCED)
    assert hashes(foreign.parent / "shared.backup2") == before
    assert SharedFolder.of(foreign).folder == foreign
    assert (foreign / "sparse" / "0" / "cameras.bin").is_file()
    assert not prepare(foreign.parent, foreign, STATIC)[1], "the backup is no input"


def test_failure_puts_it_back(foreign: Path) -> None:
    before = hashes(foreign)
    (foreign.parent / "stereo_left.png").unlink()
    with pytest.raises(UserError, match="no left half"):
        prepare(foreign.parent, foreign, FORCED)
    assert hashes(foreign) == before
    assert not list(foreign.parent.glob("shared.backup*"))


SLOW_DECODER = """\
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", CHILD])
with open(PIDS + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(PIDS + ".part", PIDS)
time.sleep(600)
"""
# A worker that does not end by itself.
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_decoding_ends_the_decoder_and_puts_it_back(
    foreign: Path, tmp_path: Path, number: int
) -> None:
    before, pids, script = hashes(foreign), tmp_path / "pids", tmp_path / "decode.py"
    shutil.rmtree(foreign.parent / "lightfield_decoded")
    script.write_text(f"PIDS, CHILD = {str(pids)!r}, {CHILD!r}\n{SLOW_DECODER}")
    command = [sys.executable, "-m", "stages.static_prepare", str(foreign.parent.parent)]
    for value in (f"static.lf_to_colmap={script}", "runtime.static.force=true"):
        command += ["-S", value]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 300
    while not pids.exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    assert pids.exists(), run.communicate()[0]
    assert (foreign / ".new.part").exists()
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 75, output
    assert "stopped; run again to go on" in output
    assert "***" not in output
    assert hashes(foreign) == before
    assert not list(foreign.parent.glob("shared.backup*"))
    assert not [pid for pid in pids.read_text().split() if Process.of(int(pid)).is_alive()]


def test_what_was_moved_aside_is_named_where_poses_are_missing(foreign: Path) -> None:
    foreign.rename(foreign.with_name("shared.backup1"))
    with pytest.raises(UserError, match=r"remove .*/shared if .*rename .*back") as raised:
        prepare(foreign.parent, foreign, AS_IT_IS)
    assert str(foreign.with_name("shared.backup1")) in str(raised.value)


def test_another_prep_root_takes_it_or_leaves_it(foreign: Path, tmp_path: Path) -> None:
    before = hashes(foreign)
    prepare(foreign.parent, tmp_path / "used", AS_IT_IS)
    prepare(foreign.parent, tmp_path / "anew", STATIC)
    assert hashes(foreign) == before
    used, anew = SharedFolder.of(tmp_path / "used"), SharedFolder.of(tmp_path / "anew")
    assert used.folder == tmp_path / "used"
    theirs, _ = read_rig_model(foreign / "subsets" / "iphone" / "sparse")
    cameras, _ = read_rig_model(used.subset("iphone") / "sparse" / "0")
    for name, camera in cameras.items():
        assert np.array_equal(camera.cam_from_world, theirs[name].cam_from_world)
    assert (anew.folder / "sparse" / "0" / "cameras.bin").is_file()
    other = tmp_path / "other"
    other.mkdir()
    marker = {"origin": {"files": {"wide.png": "hash of another scene's image"}}, "made": {}}
    (other / ".prep_complete").write_text(json.dumps(marker))
    with pytest.raises(UserError, match="holds the preparation of another scene"):
        prepare(foreign.parent, other, AS_IT_IS)


@pytest.mark.parametrize("lists", [True, False])
def test_subsets_follow_from_the_whole_model(
    scene: Path, tree: tuple[Path, dict[str, Camera]], lists: bool
) -> None:
    """By lists of names or, without them, by prefixes; points are those visible in a subset."""
    foreign = write_shared(scene, tree[1], subsets=False)
    if lists:
        (foreign / "splits" / "iphone.txt").write_text("wide.png\niphone__tele.png\n")
    else:
        shutil.rmtree(foreign / "splits")
    prepare(foreign.parent, foreign, AS_IT_IS)
    shared = SharedFolder.of(foreign)
    split = (shared.folder / "splits" / "iphone.txt").read_text().split()
    tele_and_wide = {"iphone__wide.png", "iphone__tele.png"}
    assert set(split) == (tele_and_wide if lists else tele_and_wide | {"iphone__ultrawide.png"})
    whole, structure = read_rig_model(foreign / "sparse")
    for kind in SUBSETS:
        cameras, points = read_rig_model(shared.subset(kind) / "sparse" / "0")
        visible = structure.visible_in(list(cameras)).points
        assert len(points.points) == len(visible)
        assert kind != "monocular" or len(visible) < len(structure.points)
        assert {tuple(point) for point in points.points} == {tuple(point) for point in visible}
        for name, camera in cameras.items():
            assert camera.cam_from_world == pytest.approx(whole[name].cam_from_world)


def test_missing_kind_names_the_places(foreign: Path) -> None:
    shutil.rmtree(foreign / "subsets" / "stereo")
    (foreign / "splits" / "stereo.txt").unlink()
    shutil.rmtree(foreign / "images")
    with pytest.raises(UserError, match="no images of stereo") as raised:
        prepare(foreign.parent, foreign, AS_IT_IS)
    for place in ("subsets/stereo", "splits/stereo.txt", "images", "sparse"):
        assert str(foreign / place) in str(raised.value)
    assert not (foreign / "splatfix").exists()


def test_stopped_run_of_ours_is_not_another_programs(scene: Path) -> None:
    shared = scene / "static" / "shared"
    prepare(scene / "static", shared, STATIC)
    (shared / ".prep_complete").unlink()
    assert not is_foreign(shared)
    (shared / ".new.part").mkdir()
    assert prepare(scene / "static", shared, STATIC)[1]


def test_wrong_files_elsewhere_are_told_before_the_work(scene: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"not a tar")
    for values, words in (
        ({"lf_calib": str(tmp_path / "none.tar")}, "LF_CALIB.*none.tar: no such file"),
        ({"lf_calib": str(broken)}, "LF_CALIB.*broken.tar: not a whole tar"),
        ({"lf_to_colmap": str(tmp_path / "none.py")}, "LF_TO_COLMAP.*none.py: no such file"),
        ({"lf_to_colmap": str(tmp_path)}, "LF_TO_COLMAP.*: is a folder"),
    ):
        with pytest.raises(UserError, match=words):
            prepare(scene / "static", tmp_path / "out", STATIC.model_copy(update=values))
        assert not (tmp_path / "out").exists()


def test_vggt_alone_without_vggt_is_an_error(scene: Path, tmp_path: Path) -> None:
    vggt = STATIC.model_copy(update={"vggt_stage": "vggt"})
    with pytest.raises(UserError, match=r"VGGT_STAGE.*VGGT is not installed"):
        prepare(scene / "static", tmp_path / "out", vggt)
    assert not (tmp_path / "out").exists()
