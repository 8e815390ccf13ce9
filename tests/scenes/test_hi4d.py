"""Hi4D's raw layout: what is read, what may be absent, and what each fault says."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.run.errors import UserError
from stages.scenes.config import SceneEntry
from stages.scenes.sources import opening
from stages.scenes.sources.hi4d import open_sequence
from stages.scenes.sources.opening import ChooseFrames, raw_errors
from stages.scenes.sources.raw_sequence import RawSequence

Writer = Callable[..., Path]
CAMERAS = ("4", "16", "28")


def edit_calibration(root: Path, **changes: np.ndarray | None) -> None:
    path = root / "cameras" / "rgb_cameras.npz"
    values = {
        key: value for key, value in (dict(np.load(path)) | changes).items() if value is not None
    }
    np.savez(path, **values)


def opened(root: Path) -> RawSequence:
    return open_sequence(root, CAMERAS)


def layout_error(
    root: Path, cameras: tuple[str, ...], choose: ChooseFrames | None = None
) -> UserError | None:
    sources, targets = cameras[:-1], cameras[-1:]
    entry = SceneEntry(source="hi4d", source_cameras=sources, target_cameras=targets)
    return opening.layout_error(entry, root, choose)


@pytest.mark.parametrize("key", ["intrinsics", "intirnsics"])
def test_calibration_is_read_under_both_spellings(
    tmp_path: Path, raw_sequence: Writer, key: str
) -> None:
    root = raw_sequence(
        tmp_path / "raw", distortion=(0.1, 0.2, 0.01, 0.02, 0.3), intrinsics_key=key
    )
    values = np.load(root / "cameras" / "rgb_cameras.npz")
    camera = opened(root).cameras["16"]
    np.testing.assert_array_equal(camera.K, values[key][1])
    np.testing.assert_allclose(camera.cam_from_world[:3], values["extrinsics"][1], atol=1e-12)
    np.testing.assert_array_equal(camera.cam_from_world[3], [0, 0, 0, 1])
    assert camera.distortion.tolist() == [0.1, 0.2, 0.01, 0.02, 0.3]


def test_cameras_are_found_by_id_and_not_by_place(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    before = opened(root).cameras["4"].cam_from_world
    values = dict(np.load(root / "cameras" / "rgb_cameras.npz"))
    edit_calibration(root, **{key: value[::-1] for key, value in values.items()})
    np.testing.assert_allclose(opened(root).cameras["4"].cam_from_world, before)


@pytest.mark.parametrize(
    ("coefficients", "expected"), [(None, [0] * 5), ((0.1, 0.2), [0.1, 0.2, 0, 0, 0])]
)
def test_absent_distortion_coefficients_are_zero(
    tmp_path: Path, raw_sequence: Writer, coefficients: tuple | None, expected: list[float]
) -> None:
    root = raw_sequence(tmp_path / "raw")
    edit_calibration(
        root, dist_coeffs=None if coefficients is None else np.array([coefficients] * 3)
    )
    assert opened(root).cameras["4"].distortion.tolist() == expected


def test_a_richer_lens_model_is_refused_and_not_cut(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    edit_calibration(root, dist_coeffs=np.full((3, 8), 0.01))
    with pytest.raises(UserError, match="8 distortion coefficients"):
        opened(root)


def test_rounded_rotations_become_exact(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    rounded = np.load(root / "cameras" / "rgb_cameras.npz")["extrinsics"].round(4)
    edit_calibration(root, extrinsics=rounded)
    rotation = opened(root).cameras["28"].cam_from_world[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation, rounded[2, :, :3], atol=1e-4)


def test_a_wrapped_archive_is_found(tmp_path: Path, raw_sequence: Writer) -> None:
    raw_sequence(tmp_path / "raw" / "pair15" / "pair15" / "fight15")
    assert opened(tmp_path / "raw").root == tmp_path / "raw" / "pair15" / "pair15" / "fight15"


def test_two_sequences_in_one_place_are_refused(tmp_path: Path, raw_sequence: Writer) -> None:
    for action in ("fight15", "hug15"):
        raw_sequence(tmp_path / "raw" / action)
    with pytest.raises(UserError, match="2 folders with cameras/"):
        opened(tmp_path / "raw")


def test_frames_are_those_that_all_cameras_share(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw", frames=(7, 9, 10, 14))
    (root / "images" / "16" / "000009.png").unlink()
    (root / "images" / "28" / "Thumbs.db").write_text("")
    (root / "images" / "28" / "notes.png").write_text("")
    sequence = opened(root)
    assert sequence.common_frames(CAMERAS) == [7, 10, 14]
    assert sequence.dropped_frames(CAMERAS) == 1
    assert sequence.common_frames(("4", "28")) == [7, 9, 10, 14]
    assert sequence.dropped_frames(("4", "28")) == 0


def test_meta_limits_the_frames_inclusively(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw", frames=range(20, 30), span=(22, 25))
    assert opened(root).common_frames(CAMERAS) == [22, 23, 24, 25]
    assert opened(root).dropped_frames(CAMERAS) == 0


def test_no_shared_frame_says_what_there_is(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw", frames=(5, 6))
    (root / "images" / "4" / "000005.png").unlink()
    (root / "images" / "16" / "000006.png").unlink()
    with pytest.raises(UserError, match="4: 1, 16: 1, 28: 2"):
        opened(root).common_frames(CAMERAS)


def test_a_range_without_frames_names_the_range(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw", frames=(5, 6), span=(100, 140))
    with pytest.raises(UserError, match=r"from 100 to 140, the range of meta\.npz"):
        opened(root).common_frames(CAMERAS)


@pytest.mark.parametrize("masks", [("all",), ("0", "1"), ("all", "0", "1")])
def test_masks_of_all_or_of_both_people_are_the_same(
    tmp_path: Path, raw_sequence: Writer, masks: tuple[str, ...]
) -> None:
    mask = opened(raw_sequence(tmp_path / "raw", masks=masks)).mask("4", 21, (128, 96))
    expected = np.zeros((128, 96), bool)
    expected[:64, :48] = expected[64:, 48:] = True
    np.testing.assert_array_equal(mask, expected)


def test_one_person_alone_has_one_mask(tmp_path: Path, raw_sequence: Writer) -> None:
    mask = opened(raw_sequence(tmp_path / "raw", masks=("1",))).mask("4", 21, (128, 96))
    assert mask.sum() == 64 * 48


def test_a_sequence_may_have_no_masks(tmp_path: Path, raw_sequence: Writer) -> None:
    assert opened(raw_sequence(tmp_path / "raw", masks=())).mask("4", 21, (128, 96)) is None


def test_a_single_missing_mask_is_named(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    gone = root / "seg" / "img_seg_mask" / "16" / "all" / "000022.png"
    gone.unlink()
    with pytest.raises(UserError) as caught:
        opened(root).mask("16", 22, (128, 96))
    assert str(gone) in str(caught.value)
    assert "prepare.masks" in str(caught.value)


def test_a_mask_of_another_size_is_named(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    path = root / "seg" / "img_seg_mask" / "4" / "all" / "000021.png"
    Image.new("L", (48, 64)).save(path)
    with pytest.raises(UserError, match="48x64 px") as caught:
        opened(root).mask("4", 21, (128, 96))
    assert str(path) in str(caught.value)
    assert "96x128 px" in str(caught.value)


@pytest.mark.parametrize("size", [(48, 64), (192, 256), (256, 128)])
def test_images_that_contradict_the_calibration_are_refused(
    tmp_path: Path, raw_sequence: Writer, size: tuple[int, int]
) -> None:
    """Halved or doubled images, or wide instead of upright ones."""
    root = raw_sequence(tmp_path / "raw")
    assert opened(root).camera("4", [21, 22]).width == 96
    path = root / "images" / "4" / "000022.png"
    Image.new("RGB", size).save(path)
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} px") as caught:
        opened(root).camera("4", [22])
    assert str(path) in str(caught.value)
    assert "about 100x125 px" in str(caught.value)


def break_npz(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: os.rename(root, root.with_name("elsewhere")), "raw: no such folder"),
        (lambda root: os.rename(root / "cameras", root / "x"), "0 folders with cameras/"),
        (lambda root: (root / "cameras/rgb_cameras.npz").unlink(), "rgb_cameras.npz: no such file"),
        (lambda root: break_npz(root / "cameras/rgb_cameras.npz"), "not a readable .npz"),
        (lambda root: edit_calibration(root, extrinsics=None), "keys ids, intrinsics, dist_coeffs"),
        (lambda root: edit_calibration(root, intrinsics=np.eye(3)), "(3, 3)"),
        (
            lambda root: edit_calibration(root, extrinsics=np.ones((3, 3, 4))),
            "without a rotation matrix",
        ),
        (lambda root: edit_calibration(root, ids=np.array([4, 17, 28])), "no camera 16"),
        (lambda root: os.rename(root / "images/28", root / "images/028"), "28: no such folder"),
        (lambda root: [f.unlink() for f in (root / "images/4").iterdir()], "4: no images"),
        (lambda root: (root / "images/4/000021.png").write_bytes(b""), "4/000021.png: not a whole"),
        (lambda root: (root / "meta.npz").write_text("x"), "meta.npz: not a readable .npz"),
    ],
)
def test_each_fault_of_the_layout_is_one_message_that_names_its_place(
    tmp_path: Path, raw_sequence: Writer, spoil: Callable[[Path], object], says: str
) -> None:
    root = raw_sequence(tmp_path / "raw")
    assert layout_error(root, CAMERAS) is None
    spoil(root)
    error = layout_error(root, CAMERAS)
    assert error is not None
    assert says in str(error)
    assert str(root) in str(error)
    assert "expected" in str(error) or "fix" in str(error)


def changed(key: str, place: tuple, value: float) -> Callable[[Path], None]:
    """Puts another number into the calibration."""

    def spoil(root: Path) -> None:
        values = np.load(root / "cameras" / "rgb_cameras.npz")[key].copy()
        values[place] = value
        edit_calibration(root, **{key: values})

    return spoil


def replaced(**values: object) -> Callable[[Path], None]:
    return lambda root: edit_calibration(root, **{k: np.array(v) for k, v in values.items()})


def mirrored(root: Path) -> None:
    poses = np.load(root / "cameras" / "rgb_cameras.npz")["extrinsics"] * [1, 1, 1, 1]
    poses[:, 0] *= -1
    edit_calibration(root, extrinsics=poses)


def in_one_place(root: Path) -> None:
    poses = np.load(root / "cameras" / "rgb_cameras.npz")["extrinsics"].copy()
    poses[..., 3] = -poses[..., :3] @ [3, 0.2, 1]
    edit_calibration(root, extrinsics=poses)


def twice(root: Path) -> None:
    poses = np.load(root / "cameras" / "rgb_cameras.npz")["extrinsics"].copy()
    poses[2] = poses[1]
    edit_calibration(root, extrinsics=poses)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (changed("intrinsics", (1, 0, 2), np.nan), "camera 16: NaN or infinity"),
        (changed("extrinsics", (1, 2, 3), np.inf), "camera 16: NaN or infinity"),
        (changed("dist_coeffs", (1, 4), np.nan), "camera 16: NaN or infinity"),
        (changed("intrinsics", (1, 0, 0), 0.0), "camera 16: a focal length of 0 px"),
        (changed("intrinsics", (1, 1, 1), -9.0), "camera 16: a focal length of -9 px"),
        (changed("intrinsics", (1, 2, 2), 2.0), "camera 16: K with rows 2 and 3 of"),
        (changed("intrinsics", (1, 2, 0), 0.1), "camera 16: K with rows 2 and 3 of"),
        (changed("intrinsics", (1, 0, 1), 50.0), "camera 16: a skew of 50 px"),
        (changed("intrinsics", (1, 0, 2), 1e6), "principal point at (1000000"),
        (mirrored, "camera 4: extrinsics that mirror"),
        (in_one_place, "all 3 cameras are in one place"),
        (twice, "cameras 16 and 28 have one pose"),
        (replaced(ids=[4, np.nan, 28]), "ids: NaN or infinity"),
        (replaced(ids=[4, 16.5, 28]), "ids: [4.0, 16.5, 28.0]"),
        (replaced(ids=[4, 4, 28]), "ids: several of 4"),
        (replaced(ids=["4", "04", "28"]), "ids: several of 4"),
        (replaced(ids=["4", "", "28"]), "an empty one"),
        (replaced(ids=[4j, 16, 28]), "ids: values of type complex128"),
        (replaced(dist_coeffs=[[0.0] * 5]), "shape (1, 5) for 3 cameras"),
        (replaced(dist_coeffs=[0.0] * 5), "shape (5,) for 3 cameras"),
        (replaced(intrinsics=[["x"] * 3] * 3), "shapes"),
        (replaced(intrinsics=[[["x"] * 3] * 3] * 3), "values of type <U1"),
        (
            lambda root: np.savez(root / "meta.npz", start="a", end="b"),
            "start is not a frame number",
        ),
        (
            lambda root: np.savez(root / "meta.npz", start=np.nan, end=3),
            "start is not a frame number",
        ),
        (
            lambda root: np.savez(root / "meta.npz", start=1, end=[1, 2]),
            "end is not a frame number",
        ),
        (lambda root: np.savez(root / "meta.npz", start=23, end=21), "start 23 lies after end 21"),
        (
            lambda root: Image.new("RGB", (90, 128)).save(root / "images/16/000022.png"),
            "000022.png: 90x128 px",
        ),
    ],
)
def test_numbers_are_judged_before_anything_is_computed_from_them(
    tmp_path: Path, raw_sequence: Writer, spoil: Callable[[Path], object], says: str
) -> None:
    root = raw_sequence(tmp_path / "raw")
    spoil(root)
    error = layout_error(root, CAMERAS)
    assert error is not None
    assert says in str(error)
    assert "expected" in str(error)


@pytest.mark.parametrize(
    "ids", [["4", "16", "28"], ["04", "016", "28"], [b"04", b"16", b"28"], [4.0, 16.0, 28.0]]
)
def test_numbers_of_cameras_may_be_written_in_any_form(
    tmp_path: Path, raw_sequence: Writer, ids: list
) -> None:
    root = raw_sequence(tmp_path / "raw")
    before = opened(root).cameras["16"].cam_from_world
    edit_calibration(root, ids=np.array(ids))
    np.testing.assert_array_equal(opened(root).cameras["16"].cam_from_world, before)
    os.rename(root / "images" / "4", root / "images" / "04")
    assert "is 04 meant?" in str(layout_error(root, CAMERAS))
    assert layout_error(root, ("04", "16", "28")) is None


def test_cameras_may_have_words_for_names(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    edit_calibration(root, ids=np.array(["cam04", "left", "28"]))
    os.rename(root / "images" / "4", root / "images" / "cam04")
    os.rename(root / "images" / "16", root / "images" / "left")
    assert layout_error(root, ("cam04", "left", "28")) is None
    assert "some of cam04, left, 28" in str(layout_error(root, CAMERAS))


def test_only_frames_that_are_asked_for_are_looked_at(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    Image.new("RGB", (90, 128)).save(root / "images/16/000023.png")
    assert layout_error(root, CAMERAS) is not None
    assert layout_error(root, CAMERAS, lambda frames: frames[:2]) is None


def test_pickled_calibration_is_not_executed(tmp_path: Path, raw_sequence: Writer) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "sprung").touch, ())

    root = raw_sequence(tmp_path / "raw")
    edit_calibration(root, ids=np.array([Trap(), Trap(), Trap()], dtype=object))
    with pytest.raises(UserError, match=r"not a readable \.npz"):
        opened(root)
    assert not (tmp_path / "sprung").exists()


def test_data_that_dvc_tracks_is_pulled(tmp_path: Path) -> None:
    (tmp_path / "raw.dvc").write_text("outs: []\n")
    assert f"dvc pull {tmp_path / 'raw'}" in str(layout_error(tmp_path / "raw", CAMERAS))


def test_only_brought_scenes_are_looked_at(
    tmp_path: Path, raw_sequence: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    roles = {"source_cameras": ("4", "16"), "target_cameras": ("28",)}
    raw_sequence(Path("data/raw/here"))
    entries = {
        "here": SceneEntry(source="hi4d", **roles),
        "gone": SceneEntry(source="hi4d", **roles),
        "made": SceneEntry(source="demo", **roles),
    }
    (error,) = raw_errors(entries, lambda name: Path("data/raw", name))
    assert "data/raw/gone: no such folder" in str(error)


@pytest.mark.skipif("SPLATFIX_TEST_ASSETS" not in os.environ, reason="SPLATFIX_TEST_ASSETS unset")
def test_a_real_four_camera_capture_opens() -> None:
    root = Path(os.environ["SPLATFIX_TEST_ASSETS"]) / "data" / "pose2sim_4cam"
    assert layout_error(root, ("1", "2", "3", "4")) is None
    sequence = open_sequence(root, ("1", "2", "3", "4"))
    assert sequence.common_frames(("1", "2", "3", "4")) == list(range(1, 21))
    assert sequence.image("3", 20).shape == (960, 544, 3)
    assert sequence.mask("3", 20, (960, 544)) is None


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_masks_may_be_images_of_another_kind(
    tmp_path: Path, raw_sequence: Writer, suffix: str
) -> None:
    root = raw_sequence(tmp_path / "raw")
    expected = opened(root).mask("4", 21, (128, 96))
    path = root / "seg" / "img_seg_mask" / "4" / "all" / "000021.png"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.open(path).save(path.with_suffix(suffix), **options)
    path.unlink()
    np.testing.assert_array_equal(opened(root).mask("4", 21, (128, 96)), expected)


def test_frames_may_be_images_of_any_kind(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    path = root / "images" / "4" / "000021.png"
    expected = opened(root).image("4", 21)
    Image.open(path).save(path.with_suffix(".TIFF"))
    path.unlink()
    np.testing.assert_array_equal(opened(root).image("4", 21), expected)


def test_two_images_of_one_frame_are_refused(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw")
    path = root / "images" / "4" / "000021.png"
    Image.open(path).save(path.with_name("21.jpg"))
    with pytest.raises(UserError, match=r"two images of frame 21: 000021\.png, 21\.jpg"):
        opened(root)


def test_what_systems_leave_is_no_part_of_a_sequence(
    tmp_path: Path, raw_sequence: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    root = raw_sequence(tmp_path / "raw" / "pair15" / "fight15")
    (tmp_path / "raw" / "__MACOSX" / "pair15" / "fight15" / "cameras").mkdir(parents=True)
    folder = root / "images" / "4"
    (folder / "._000021.png").write_text("x")
    (folder / "000023.HEIC").write_text("x")
    frames = opened(tmp_path / "raw").frames["4"]
    assert set(frames) == set(opened(root).frames["16"])
    assert capsys.readouterr().err.splitlines() == [
        f"{folder}: 1 file not read: 000023.HEIC; convert them to JPEG or PNG",
        f"{folder}: 1 hidden file or folder skipped: ._000021.png",
    ]


def test_folders_of_a_sequence_may_be_links(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "store")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "fight15").symlink_to(root)
    assert opened(tmp_path / "raw").frames["4"].keys() == opened(root).frames["4"].keys()


def in_contact(root: Path, contact: str) -> list[int]:
    roles = {"source_cameras": CAMERAS[:2], "target_cameras": CAMERAS[2:]}
    entry = SceneEntry(source="hi4d", contact=contact, **roles)
    return opening.open_raw(entry, root).common_frames(CAMERAS)


def test_frames_with_contact_or_without_can_be_chosen(tmp_path: Path, raw_sequence: Writer) -> None:
    root = raw_sequence(tmp_path / "raw", frames=range(20, 30), span=(22, 27))
    with pytest.raises(UserError, match=r"meta\.npz: no contact_ids"):
        in_contact(root, "only")
    np.savez(root / "meta.npz", start=22, end=27, contact_ids=np.array([21, 23, 24, 27]))
    assert in_contact(root, "only") == [23, 24, 27]
    assert in_contact(root, "none") == [22, 25, 26]
    assert in_contact(root, "any") == list(range(22, 28))
    np.savez(root / "meta.npz", start=22, end=27, contact_ids=np.array([29]))
    with pytest.raises(UserError, match="no frame that all cameras share from 22 to 27"):
        in_contact(root, "only")
    np.savez(root / "meta.npz", start=22, end=27, contact_ids=np.array([0.5]))
    with pytest.raises(UserError, match="contact_ids is not a frame number"):
        in_contact(root, "only")
    (root / "meta.npz").unlink()
    with pytest.raises(UserError, match=r"meta\.npz: no such file"):
        in_contact(root, "only")
