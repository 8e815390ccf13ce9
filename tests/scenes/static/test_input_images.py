"""Images of a static scene: their names and lenses, and messages about missing ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.run.errors import UserError
from stages.scenes.static.input_folders import find_lightfield
from stages.scenes.static.input_images import InputImage, list_input_images

FOLDERS = (
    "monocular/wide.jpg",
    "iphone/wide.png",
    "iphone/tele.png",
    "iphone/ultrawide.png",
    "stereo/left.png",
    "stereo/right.png",
    "iphone_eval/clip/frame_00001.png",
    "iphone_eval/clip/frame_00002.png",
)
KINDS = ("monocular", "iphone", "stereo", "iphone_eval")


def write_images(root: Path, names: tuple[str, ...] = FOLDERS, mm: int | None = None) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if mm:
            exif[0x8769] = {0xA405: mm}
        Image.new("RGB", (40, 30), (number, 0, 0)).save(root / name, exif=exif)
    return root


def by_name(images: list[InputImage]) -> dict[str, InputImage]:
    return {image.name: image for image in images}


def test_names_are_prefix_and_path(tmp_path: Path) -> None:
    images = by_name(list_input_images(write_images(tmp_path), KINDS))
    assert list(images) == [
        "mono__wide.png",
        "iphone__tele.png",
        "iphone__ultrawide.png",
        "iphone__wide.png",
        "stereo__left.png",
        "stereo__right.png",
        "eval__clip__frame_00001.png",
        "eval__clip__frame_00002.png",
    ]
    assert images["eval__clip__frame_00001.png"].source == "iphone_eval/clip/frame_00001.png"


def test_images_may_lie_beside_each_other(tmp_path: Path) -> None:
    flat = ("wide.png", "tele.png", "ultrawide.png", "stereo_left.png", "stereo_right.png")
    write_images(tmp_path, (*flat, "iphone_eval/1.png"))
    images = by_name(list_input_images(tmp_path, KINDS))
    assert "mono__wide.png" in images
    assert images["mono__wide.png"].sha256 == images["iphone__wide.png"].sha256
    left, right = images["stereo__stereo_left.png"].slot, images["stereo__stereo_right.png"].slot
    assert (left.rig, left.frame) == (right.rig, right.frame)
    assert left.lens != right.lens


def test_a_video_shares_a_lens_and_a_phone_has_three(tmp_path: Path) -> None:
    images = by_name(list_input_images(write_images(tmp_path), KINDS))
    lenses = {name: image.slot.lens for name, image in images.items()}
    assert lenses["eval__clip__frame_00001.png"] == lenses["eval__clip__frame_00002.png"]
    assert len({lenses[f"iphone__{lens}.png"] for lens in ("wide", "tele", "ultrawide")}) == 3
    slots = [images[f"eval__clip__frame_0000{k}.png"].slot for k in (1, 2)]
    assert slots[0].frame != slots[1].frame


def test_stereo_frames_pair_by_name_in_folders(tmp_path: Path) -> None:
    names = tuple(f"stereo/{side}/{k}.png" for side in ("left", "right") for k in (1, 2))
    images = by_name(list_input_images(write_images(tmp_path, names), ("stereo",)))
    assert images["stereo__left__2.png"].slot.frame == images["stereo__right__2.png"].slot.frame
    assert images["stereo__left__1.png"].slot.frame != images["stereo__right__2.png"].slot.frame


def test_exif_gives_the_focal_length(tmp_path: Path) -> None:
    known = list_input_images(write_images(tmp_path / "a", mm=26), ("monocular",))[0]
    assert known.focal_px == pytest.approx(26 / 43.267 * 50)
    assert known.slot.known_focal
    unknown = list_input_images(write_images(tmp_path / "b"), ("monocular",))[0]
    assert unknown.focal_px is None
    assert not unknown.slot.known_focal


def test_missing_stereo_half_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, tuple(name for name in FOLDERS if name != "stereo/right.png"))
    with pytest.raises(UserError, match="no right half"):
        list_input_images(tmp_path, KINDS)
    write_images(tmp_path / "b", ("stereo/left/1.png", "stereo/left/2.png", "stereo/right/1.png"))
    with pytest.raises(UserError, match="no right half of 2"):
        list_input_images(tmp_path / "b", ("stereo",))


def test_all_missing_kinds_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "iphone_eval").mkdir()
    with pytest.raises(UserError) as raised:
        list_input_images(tmp_path, KINDS)
    for kind in KINDS:
        assert f"no image for {kind}" in str(raised.value)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, ("monocular/a.png", "monocular/a.jpg"))
    with pytest.raises(UserError, match="two images would both be named mono__a"):
        list_input_images(tmp_path, ("monocular",))


def test_light_field_is_in_its_folder_or_beside_the_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 light fields"):
        find_lightfield(write_images(tmp_path), 2)
    (tmp_path / "IMG_0042.LFR").touch()
    assert find_lightfield(tmp_path, 2).path == tmp_path / "IMG_0042.LFR"
    (tmp_path / "IMG_0043.LFR").touch()
    with pytest.raises(UserError, match=r"2 light fields: .*IMG_0042.LFR, .*IMG_0043.LFR"):
        find_lightfield(tmp_path, 2)
    (tmp_path / "lightfield").mkdir()
    assert find_lightfield(tmp_path, 2).path == tmp_path / "lightfield"


def test_decoded_light_field_takes_precedence_over_a_raw_one(tmp_path: Path) -> None:
    (tmp_path / "IMG_0042.LFR").touch()
    (tmp_path / "dog_eslf.png").touch()
    assert find_lightfield(tmp_path, 2).path == tmp_path / "dog_eslf.png"
    write_images(tmp_path, ("lightfield_decoded/inner_02/images/02_02.png",))
    with pytest.raises(UserError, match=r"2 light fields: .*dog_eslf.png, .*inner_02"):
        find_lightfield(tmp_path, 2)


@pytest.mark.parametrize("name", ["lightfield_decoded", "lightfield-decoded"])
@pytest.mark.parametrize("level", ["", "images/"])
def test_views_decoded_by_number_of_rings(tmp_path: Path, name: str, level: str) -> None:
    """The folder without the configured rings is read; no more rings are left out of it."""
    write_images(tmp_path, (f"{name}/inner_01/{level}01_01.png", f"{name}/inner_02/{level}02.png"))
    write_images(tmp_path, (f"{name}/inner_03/{level}r03_c03.png",))
    (tmp_path / "IMG_0042.LFR").touch()
    found = find_lightfield(tmp_path, 1)
    assert (found.path, found.inner) == (tmp_path / name / "inner_01", 0)
    with pytest.raises(UserError, match="no such folder with views") as raised:
        find_lightfield(tmp_path, 2)
    assert str(tmp_path / name / "inner_02") in str(raised.value)
    assert f"{name}/ has inner_01, inner_03" in str(raised.value)
    assert "static.lf_inner=1 (LF_INNER), or name a decoder" in str(raised.value)
    decoded = find_lightfield(tmp_path, 2, "lf_to_colmap.py")
    assert (decoded.path, decoded.inner) == (tmp_path / "IMG_0042.LFR", 2)


EVAL_PLACES = [
    f"{place}{name}{level}"
    for place in ("", "../")
    for name in ("iphone_eval", "iphone-eval")
    for level in ("", "/images")
]


@pytest.mark.parametrize("place", EVAL_PLACES)
def test_eval_frames_in_every_place(tmp_path: Path, place: str) -> None:
    static = write_images(tmp_path / "static", (f"{place}/clip/1.png", f"{place}/2.png"))
    images = by_name(list_input_images(static, ("iphone_eval",)))
    assert list(images) == ["eval__2.png", "eval__clip__1.png"]
    assert images["eval__2.png"].source == f"{place}/2.png".removeprefix("../")


def test_eval_frames_in_two_places_are_refused(tmp_path: Path) -> None:
    static = write_images(tmp_path / "static", ("iphone_eval/1.png", "../iphone-eval/images/1.png"))
    with pytest.raises(UserError, match="images of iphone_eval in 2 folders") as raised:
        list_input_images(static, ("iphone_eval",))
    assert f"{static}/iphone_eval, {tmp_path}/iphone-eval" in str(raised.value)
    (static / "iphone_eval" / "1.png").unlink()
    assert len(list_input_images(static, ("iphone_eval",))) == 1, "the other holds none"
    (static / "iphone_eval").rmdir()
    (static / "iphone_eval").symlink_to(tmp_path / "iphone-eval")
    assert len(list_input_images(static, ("iphone_eval",))) == 1, "both are one folder"


def test_all_places_of_missing_eval_frames_are_named(tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    with pytest.raises(UserError, match="no image for iphone_eval") as raised:
        list_input_images(tmp_path / "static", ("iphone_eval",))
    for place in ("static/iphone_eval", "static/iphone-eval", "iphone_eval", "iphone-eval"):
        assert f"{tmp_path / place}/" in str(raised.value)


def test_folder_of_a_kind_may_be_a_dataset_whose_images_alone_are_taken(tmp_path: Path) -> None:
    names = ("stereo/images/left.png", "stereo/images/right.png", "stereo/masks/left.png")
    write_images(tmp_path, names)
    (tmp_path / "stereo" / "sparse" / "0").mkdir(parents=True)
    images = by_name(list_input_images(tmp_path, ("stereo",)))
    assert list(images) == ["stereo__left.png", "stereo__right.png"]
    assert images["stereo__left.png"].source == "stereo/images/left.png"
    assert images["stereo__left.png"].slot.lens == "stereo/left"


def test_files_that_are_no_images_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path)
    for name in ("iphone/macro.HEIC", "iphone/._wide.png", "iphone/@eaDir/wide.png/x.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    images = by_name(list_input_images(root, KINDS))
    assert [name for name in images if name.startswith("iphone")] == [
        "iphone__tele.png",
        "iphone__ultrawide.png",
        "iphone__wide.png",
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"{root}/iphone: 1 file not read: macro.HEIC; convert them to JPEG or PNG",
        f"{root}/iphone: 2 hidden files and folders skipped: ._wide.png, @eaDir",
    ]


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    root = write_images(tmp_path, ("wide.png", "iphone_eval/1.png"))
    (root / "._wide.png").write_text("x")
    (root / "._a.LFR").write_text("x")
    (root / "a.LFR").write_text("x")
    assert list(by_name(list_input_images(root, ("monocular",)))) == ["mono__wide.png"]
    assert find_lightfield(root, 2).path == root / "a.LFR"


def test_folder_of_a_kind_may_be_a_link(tmp_path: Path) -> None:
    store = write_images(tmp_path / "store")
    root = write_images(tmp_path / "static", ("monocular/wide.png",))
    (root / "stereo").symlink_to(store / "stereo")
    names = list(by_name(list_input_images(root, ("monocular", "stereo"))))
    assert names == ["mono__wide.png", "stereo__left.png", "stereo__right.png"]


def test_alpha_is_composited_over_the_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path)
    Image.new("RGBA", (40, 30), (9, 9, 9, 0)).save(root / "iphone" / "tele.png")
    images = by_name(list_input_images(root, KINDS, (1, 0.5, 0)))
    np.testing.assert_array_equal(images["iphone__tele.png"].read()[0, 0], [1, 0.5, 0])
    assert "1 of 3 images have alpha" in capsys.readouterr().err


def test_broken_exif_gives_no_focal_length(tmp_path: Path) -> None:
    root = write_images(tmp_path)
    path = root / "monocular" / "wide.jpg"
    Image.open(path).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert list_input_images(root, ("monocular",))[0].focal_px is None
