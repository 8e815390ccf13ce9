"""Which files of a folder are images, and warnings about the others."""

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import walls
from PIL import Image
from small_capture import NAMES, write_capture

from stages.run.errors import UserError
from stages.scenes import images
from stages.scenes.captures.calibration import calibrate_capture
from stages.scenes.captures.colmap_mapping import summarise
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.dataset import Dataset, find_photographs
from stages.scenes.image_folder import MARK, list_images, walk_folder
from stages.scenes.sources.name_filter import matching

GIVEN = CaptureCalibrateConfig(method="given")


def add(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 99, np.uint8)).save(path, format="PNG")


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("names") / "room")


@pytest.fixture
def folder(room: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(room, tmp_path / "room"))


def warnings_of(capsys: pytest.CaptureFixture[str], root: Path) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix(f"{root}: ") for line in lines]


def test_hidden_files_and_thumbnails_are_skipped_and_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "a.jpg", tmp_path / "LEFT" / "b.PNG", tmp_path / "@home.jpeg")
    hidden = [
        "._a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        ".thumbnails/a.png",
        "LEFT/._b.PNG",
        "__MACOSX/._c.jpg",
        "#recycle/d.jpg",
        "$RECYCLE.BIN/e.jpg",
        "LEFT/.DS_Store",
        "Thumbs.db",
    ]
    add(*(tmp_path / name for name in hidden))
    for _ in range(2):
        assert list(find_photographs(tmp_path)) == ["@home.jpeg", "LEFT/b.PNG", "a.jpg"]
    assert warnings_of(capsys, tmp_path) == [
        "9 hidden files and folders skipped: #recycle, $RECYCLE.BIN, ._a.jpg, .thumbnails, "
        "@eaDir and 4 more"
    ]


def test_folder_that_is_hidden_itself_is_read(tmp_path: Path) -> None:
    add(tmp_path / ".cache" / "a.jpg")
    assert list(find_photographs(tmp_path / ".cache")) == ["a.jpg"]


def test_unreadable_formats_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "a.jpg")
    for name in ("c.HEIC", "d.CR2", "e.avif", "f.jxl", "deep/g.dng", "h.MOV", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert list(find_photographs(tmp_path)) == ["a.jpg"]
    assert warnings_of(capsys, tmp_path) == [
        "6 files not read: c.HEIC, d.CR2, deep/g.dng, e.avif, f.jxl and 1 more; convert them to "
        "JPEG or PNG"
    ]


def test_nothing_but_such_formats_is_an_error_that_follows_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match="no image in it"):
        find_photographs(tmp_path)
    assert warnings_of(capsys, tmp_path) == ["1 file not read: c.HEIC; convert them to JPEG or PNG"]


def test_every_suffix_of_the_list_is_read(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((6, 8, 3), 99, np.uint8))
    names = ["a.avif", "a.AVIF", "a.webp", "a.TIF", "a.tiff", "a.bmp", "a.gif", "a.jp2", "a.JPEG"]
    for name in names:
        image.save(tmp_path / name)
    assert sorted(find_photographs(tmp_path)) == sorted(names)


def test_links_are_followed_without_an_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "store" / "b.png", tmp_path / "p" / "z" / "a.png", tmp_path / "outside.png")
    root = tmp_path / "p"
    (root / "LEFT").symlink_to(tmp_path / "store")
    (root / "c.png").symlink_to(tmp_path / "store" / "b.png")
    (root / "again").symlink_to(root / "z")
    (root / "z" / "up").symlink_to(root)
    (root / "z" / "above").symlink_to(tmp_path)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe.png")
    assert list(find_photographs(root)) == ["LEFT/b.png", "c.png", "z/a.png"]
    assert warnings_of(capsys, root) == ["2 broken links: gone, self.png"]


def test_folder_that_is_a_link_is_read(tmp_path: Path) -> None:
    add(tmp_path / "store" / "a.png")
    (tmp_path / "p").symlink_to(tmp_path / "store")
    assert list(find_photographs(tmp_path / "p")) == ["a.png"]


def test_many_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    names = [f"{k:02d}" for k in range(20)]
    for name in names:
        add(tmp_path / name / "a.png")
        for other in names:
            (tmp_path / name / f"to{other}").symlink_to(tmp_path / other)
    assert list(find_photographs(tmp_path)) == [f"{name}/a.png" for name in names]
    assert len(walk_folder(tmp_path).folders) == 21


@pytest.mark.parametrize(
    "marks",
    [
        ["train/capture.json", "train/gaussians.safetensors"],
        ["frame.json", "metrics.json", "views.tsv"],
        ["checkpoints/capture.json", "checkpoints/gaussians.safetensors"],
        [".prep_complete"],
        ["scene.json", "split.csv"],
        [MARK],
    ],
)
def test_own_results_are_no_images(
    tmp_path: Path, marks: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "a.jpg", tmp_path / "out" / "deep" / "held_out" / "given" / "a.jpg.png")
    add(tmp_path / ".ds.part" / "images" / "a.jpg")
    for mark in marks:
        (tmp_path / "out" / mark).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / mark).write_text("{}")
    assert list(find_photographs(tmp_path)) == ["a.jpg"]
    assert warnings_of(capsys, tmp_path) == ["1 folder of own results skipped: out"]
    # A lone file of such a name is the user's.
    if len(marks) > 1:
        (tmp_path / "out" / marks[0]).unlink()
        assert len(find_photographs(tmp_path)) == 2


def test_dataset_among_its_images_is_left_out(folder: Path) -> None:
    for name in ("ds", "ds2"):
        metrics = calibrate_capture(folder, folder / "images" / name, GIVEN)
        assert metrics["total"] == len(NAMES)
    assert Dataset.read(folder / "images" / "ds2").without_pose == ()


FOREIGN = os.fsdecode(b"\xc7\xd1.jpg")


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    add(tmp_path / "a.jpg", tmp_path / FOREIGN)
    with pytest.raises(UserError) as error:
        find_photographs(tmp_path)
    message = str(error.value)
    assert "1 of 2 images have names that are not UTF-8" in message
    assert "'\\xc7\\xd1.jpg'" in message
    message.encode()


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\tb.jpg", "\x1b[31m.jpg"])
def test_names_that_break_a_line_are_refused(tmp_path: Path, name: str) -> None:
    add(tmp_path / name)
    with pytest.raises(UserError, match="1 of 1 images have names") as error:
        find_photographs(tmp_path)
    assert name not in str(error.value)


def test_other_files_of_such_names_are_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "a.jpg")
    (tmp_path / os.fsdecode(b"\xc7\xd1.heic")).write_text("")
    (tmp_path / ".a\nb").write_text("")
    code = (
        "import sys; from pathlib import Path; from stages.scenes.dataset import find_photographs;"
        "find_photographs(Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root)
    assert capfd.readouterr().err.splitlines() == [
        f"{tmp_path}: 1 file not read: \\udcc7\\udcd1.heic; convert them to JPEG or PNG",
        f"{tmp_path}: 1 hidden file or folder skipped: .a\\nb",
    ]


def rename_in_model(folder: Path, old: bytes, new: bytes) -> None:
    model = folder / "sparse" / "0" / "images.bin"
    assert len(old) == len(new)
    data = model.read_bytes()
    assert old in data
    model.write_bytes(data.replace(old, new))


def as_text(folder: Path, change: Callable[[bytes], bytes]) -> None:
    """Make the model one of text files; `change` rewrites that of the images."""
    sparse = folder / "sparse" / "0"
    pycolmap.Reconstruction(sparse).write_text(str(sparse))
    for path in sparse.glob("*.bin"):
        path.unlink()
    images = sparse / "images.txt"
    images.write_bytes(change(images.read_bytes()))


@pytest.mark.parametrize("is_text", [False, True])
def test_model_with_names_that_are_not_utf8_says_so(folder: Path, is_text: bool) -> None:
    old, new = b"LEFT/00_LEFT.png", b"LEFT/0 \xc7\xd1EFT.png"
    if is_text:
        as_text(folder, lambda text: text.replace(old, new))
    else:
        rename_in_model(folder, old, new)
    with pytest.raises(UserError) as error:
        Dataset.read(folder)
    message = str(error.value)
    assert message.startswith(f"{folder}/sparse/0: 1 of 8 image names are not UTF-8")
    assert "'LEFT/0 \\xc7\\xd1EFT.png'" in message


@pytest.mark.parametrize("model", ["NFC", "NFD"])
@pytest.mark.parametrize("disk", ["NFC", "NFD"])
def test_unicode_forms_of_a_name_are_equal(folder: Path, model: str, disk: str) -> None:
    # As long as the name that it replaces, in either form.
    name = "LEFT/é" + {"NFC": "12345", "NFD": "1234"}[model] + ".png"
    old = b"LEFT/00_LEFT.png"
    inside = unicodedata.normalize(model, name)
    rename_in_model(folder, old, inside.encode())
    path = folder / "images" / NAMES[0]
    path.rename(folder / "images" / unicodedata.normalize(disk, name))
    views = {view.name: view for view in Dataset.read(folder).views}
    assert views[inside].image()[0].shape == (48, 56, 3)
    assert Dataset.read(folder).without_pose == ()
    metrics = calibrate_capture(folder, folder.parent / "out", GIVEN)
    assert (metrics["registered"], metrics["note"]) == (8, "")
    assert {view.name for view in Dataset.read(folder.parent / "out").views} == set(views)


def test_both_unicode_forms_side_by_side_are_distinguished(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    add(*(tmp_path / name for name in names))
    listing = list_images(tmp_path)
    for name in names:
        assert listing.find(name) == tmp_path / name


def test_token_matches_any_form_of_a_name() -> None:
    assert matching(unicodedata.normalize("NFD", "clip_é_1"), unicodedata.normalize("NFC", "É"))


def test_names_with_spaces_are_read_whole_from_text(folder: Path) -> None:
    renamed = {NAMES[1]: "LEFT/A 01 (402).png", NAMES[2]: "LEFT/A 02  (403).png"}
    for old, new in renamed.items():
        (folder / "images" / old).rename(folder / "images" / new)

    def change(text: bytes) -> bytes:
        for old, new in renamed.items():
            text = text.replace(old.encode(), new.encode())
        # Lines of points that hold some, as COLMAP's own models have them.
        return text.replace(b".png\n\n", b".png\n1.0 2.0 -1\n").replace(b"\n", b"\r\n")

    as_text(folder, change)
    dataset = Dataset.read(folder)
    assert {view.name for view in dataset.views} == {renamed.get(name, name) for name in NAMES}
    assert dataset.without_pose == ()
    assert set(summarise(dataset.model).registered) == {view.name for view in dataset.views}
    metrics = calibrate_capture(folder, folder.parent / "out", GIVEN)
    assert metrics["registered"] == 8


def test_file_that_the_model_names_is_taken_though_hidden(folder: Path) -> None:
    rename_in_model(folder, b"LEFT/00_LEFT.png", b".EFT/00_LEFT.xxx")
    new = folder / "images" / ".EFT" / "00_LEFT.xxx"
    new.parent.mkdir()
    (folder / "images" / NAMES[0]).rename(new)
    assert Dataset.read(folder).views[0].image_path == new


def test_no_name_of_a_model_leads_out_of_its_images(folder: Path) -> None:
    rename_in_model(folder, b"LEFT/00_LEFT.png", b"../../stolen.png")
    shutil.move(folder / "images" / NAMES[0], folder.parent / "stolen.png")
    with pytest.raises(UserError, match="1 of 8 images that it names are not below images/"):
        Dataset.read(folder)


def test_images_that_colmap_cannot_read_are_registered(tmp_path: Path) -> None:
    """pycolmap opens no WebP, AVIF, GIF and JPEG 2000."""
    source = tmp_path / "corner"
    walls.write_photographs(source, walls.cameras())
    for old, new in (("00.png", "00.webp"), ("01.png", "01.avif"), ("03.png", "L/03.jp2")):
        (source / new).parent.mkdir(exist_ok=True)
        options = {} if new.endswith("jp2") else {"quality": 95}
        Image.open(source / old).save(source / new, **options)
        (source / old).unlink()
    assert pycolmap.Bitmap.read(source / "00.webp", as_rgb=True) is None
    config = CaptureCalibrateConfig(attempts=2, lenses="one")
    metrics = calibrate_capture(source, tmp_path / "out", config)
    assert (metrics["registered"], metrics["total"]) == (5, 5)
    assert len(Dataset.read(tmp_path / "out").views) == 5
    copied = tmp_path / "out" / "images" / "00.webp"
    assert copied.read_bytes() == (source / "00.webp").read_bytes()


def test_image_beyond_memory_is_refused_before_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLMAP's features take more than reading does."""
    Image.new("L", (100, 100)).save(tmp_path / "big.png")
    monkeypatch.setattr(images, "memory_bytes", lambda: 10**6)
    assert images.read_image(tmp_path / "big.png").shape == (100, 100, 3)
    with pytest.raises(UserError, match=r"big\.png: 100x100 px") as error:
        calibrate_capture(tmp_path, tmp_path / "out", CaptureCalibrateConfig(method="sfm"))
    assert "260 bytes for each" in str(error.value)
    assert "max_image_px" in str(error.value)


def test_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path / "LEFT" / "a.png")
    scandir = os.scandir

    def refusing(folder: Path) -> object:
        if Path(folder).name == "LEFT":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=r"LEFT: cannot be listed \(Permission denied\)"):
        find_photographs(tmp_path)
