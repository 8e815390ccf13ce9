"""Every layout of raw data with every kind of bad input, through `check` and `prepare`.

What only one layout has, such as a column or a key of its calibration, is in
tests/scenes/test_sources.py and test_hi4d.py.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from one_scene_study import SCENE, study_params
from PIL import Image
from raw_layouts import SIZE, WRITERS, Original
from raw_sequences import write_raw_sequence
from ruamel.yaml import YAML

from stages import prepare
from stages.commands import check
from stages.run import layout
from stages.run.errors import UserError
from stages.scenes.config import SceneEntry
from stages.scenes.scene import Scene
from stages.scenes.sources.opening import open_raw
from stages.scenes.sources.raw_sequence import RawSequence

CAMERAS, FRAMES = (4, 16, 28), (5, 10)
SOURCES = ["hi4d", "demo", *WRITERS]
CALIBRATIONS = {
    "easyvolcap": "intri.yml",
    "transforms": "transforms.json",
    "mvhumannet": "camera_intrinsics.json",
    "actorshq": "4x/calibration.csv",
}
HI4D_CALIBRATION = "cameras/rgb_cameras.npz"
Bad = Callable[[RawSequence, Path], object]


def image(sequence: RawSequence, camera: str = "16") -> Path:
    return sequence.frames[camera][max(sequence.frames[camera])]


def no_folder(sequence: RawSequence, calibration: Path) -> None:
    shutil.rmtree(layout.raw(SCENE))


def no_calibration(sequence: RawSequence, calibration: Path) -> None:
    calibration.unlink()


def broken_calibration(sequence: RawSequence, calibration: Path) -> None:
    calibration.write_bytes(calibration.read_bytes()[:40])


def no_images_of_a_camera(sequence: RawSequence, calibration: Path) -> None:
    shutil.rmtree(image(sequence).parent)


def image_of_another_size(sequence: RawSequence, calibration: Path) -> None:
    for path in sequence.frames["16"].values():
        Image.new("RGB", (SIZE[0] // 2, SIZE[1])).save(path)


def image_cut_short(sequence: RawSequence, calibration: Path) -> None:
    image(sequence).write_bytes(image(sequence).read_bytes()[:300])


def image_that_is_text(sequence: RawSequence, calibration: Path) -> None:
    image(sequence).write_text("<html>")


# What is wrong, and a part of the message beside the place.
BAD: dict[str, tuple[Bad, str]] = {
    "no folder": (no_folder, "no such folder"),
    "no calibration": (no_calibration, "no "),
    "broken calibration": (broken_calibration, ""),
    "no images of a camera": (no_images_of_a_camera, "no such f"),
    "images of another size": (image_of_another_size, f"{SIZE[0] // 2}x{SIZE[1]} px"),
    "image cut short": (image_cut_short, "not a whole image"),
    "image that is text": (image_that_is_text, "not a whole image"),
}
# Found when images are decoded, which `check` does not.
DECODED = {"image cut short"}


def write_params(source: str, cameras: tuple[str, ...] = ("4", "16")) -> SceneEntry:
    entry = {"source": source, "source_cameras": list(cameras), "target_cameras": ["28"]}
    YAML().dump(study_params(entry), Path("params.yaml"))
    return SceneEntry(source=source, source_cameras=cameras, target_cameras=("28",))


def failure(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """The message of a command; empty where it succeeds."""
    words = ["prepare", "--scene", SCENE] if main is prepare.main else ["check"]
    monkeypatch.setattr(sys, "argv", words)
    try:
        main()
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RawSequence]:
    """Writes the miniature of a source to data/raw and opens it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))

    def write(source: str) -> RawSequence:
        root, entry = layout.raw(SCENE), write_params(source)
        made = write_raw_sequence(tmp_path / "made", CAMERAS, FRAMES, SIZE)
        if source in WRITERS:
            WRITERS[source](Original.read(made), root)
        else:
            shutil.copytree(made, root)
        return open_raw(entry, root)

    return write


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("source", SOURCES)
def test_bad_input_of_any_source_is_named(
    source: str,
    bad: str,
    written: Callable[[str], RawSequence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By both commands where headers show it; data that stage demo makes is not checked before."""
    sequence = written(source)
    assert failure(check.main, monkeypatch) == ""
    assert failure(prepare.main, monkeypatch) == ""
    before = Scene.read(layout.scene(SCENE)).timestamps
    spoil, says = BAD[bad]
    spoil(sequence, layout.raw(SCENE) / CALIBRATIONS.get(source, HI4D_CALIBRATION))
    at_start, later = failure(check.main, monkeypatch), failure(prepare.main, monkeypatch)
    assert (at_start == "") is (source == "demo" or bad in DECODED), at_start
    for message in filter(None, (at_start, later)):
        assert message.startswith(str(layout.raw(SCENE))), message
        assert says in message
        assert "expected" in message or "fix" in message
    assert later
    assert Scene.read(layout.scene(SCENE)).timestamps == before, "the earlier scene stays"


@pytest.mark.parametrize("source", SOURCES)
def test_camera_that_no_source_has_is_named(
    source: str, written: Callable[[str], RawSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(source)
    write_params(source, ("4", "99"))
    for main in (check.main, prepare.main):
        message = failure(main, monkeypatch)
        assert ("99" in message and "4, 16, 28" in message) is not (
            source == "demo" and main is check.main
        ), message
