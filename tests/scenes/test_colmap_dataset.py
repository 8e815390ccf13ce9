"""COLMAP datasets: mixed sizes, nested and rotated images, and refusals of broken ones."""

import logging
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from small_capture import NAMES, cameras, write_capture

from stages.run.errors import UserError
from stages.scenes.colmap import write_model
from stages.scenes.dataset import Dataset, image_paths
from stages.scenes.images import read_image


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture") / "room")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "room"))


def test_views_are_matched_by_name(folder: Path) -> None:
    """An extra file and a model in another order change nothing."""
    (folder / "images" / "LEFT" / "00_A_stray.png").write_bytes(
        (folder / "images" / NAMES[3]).read_bytes()
    )
    (folder / "images" / "notes.txt").write_text("not an image")
    write_model(folder / "sparse" / "0", dict(reversed(cameras().items())))
    dataset = Dataset.read(folder)
    assert [view.name for view in dataset.views] == sorted(NAMES)
    assert dataset.without_pose == ("LEFT/00_A_stray.png",)
    for view in dataset.views:
        assert np.allclose(view.camera.cam_from_world, cameras()[view.name].cam_from_world)
        image, valid = view.image()
        assert valid is None
        assert np.array_equal(image, read_image(folder / "images" / view.name))


def test_images_without_a_pose_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(folder / "sparse" / "0", dict(list(cameras().items())[:6]))
    Dataset.read(folder).log_notes()
    (message,) = caplog.messages
    assert "2 of 8 images have no pose" in message
    assert "RIGHT/02_RIGHT.png, RIGHT/03_RIGHT.png" in message


def bend(folder: Path, model: str, params: list[float]) -> Dataset:
    """Give every image of a dataset another lens."""
    reconstruction = pycolmap.Reconstruction(folder / "sparse" / "0")
    for camera in reconstruction.cameras.values():
        camera.model, camera.params = pycolmap.CameraModelId.__members__[model], params
    reconstruction.write_binary(str(folder / "sparse" / "0"))
    return Dataset.read(folder)


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        ("SIMPLE_RADIAL", [28.0, 28, 24, -0.3], "45% of the image's area is used, 56x56 px, "),
        ("RADIAL_FISHEYE", [16.0, 28, 24, 0, 0], "47% of the image's area is used, 96x96 px"),
        ("SIMPLE_RADIAL", [60.0, 28, 24, -0.1], "93% of the image's area is used, 56x47 px\n"),
    ],
)
def test_share_of_the_image_that_is_used_is_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture, model: str, params: list[float], message: str
) -> None:
    dataset = bend(folder, model, params)
    caplog.set_level(logging.INFO)
    dataset.log_notes()
    (line,) = caplog.messages
    assert f"{line}\n".startswith(f"room: {model} undistorted: {message}")
    image, valid = dataset.views[0].image()
    camera = dataset.views[0].camera
    assert image.shape[:2] == (camera.height, camera.width)
    assert (valid is None) is ("93%" in message)


def test_pinhole_images_need_no_message(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Dataset.read(folder).log_notes()
    assert caplog.messages == []


def test_grey_alpha_and_16_bits_are_read(folder: Path) -> None:
    images = folder / "images"
    levels = np.asarray(Image.open(images / NAMES[0]))
    grey = levels[..., 0]
    Image.fromarray(grey).save(images / NAMES[0])
    Image.fromarray(grey.astype(np.uint16) * 257).save(images / NAMES[1])
    half = np.dstack([levels, np.full(grey.shape, 51, np.uint8)])
    Image.fromarray(half).save(images / NAMES[2])
    images = {view.name: view.pixels() for view in Dataset.read(folder).views}
    assert np.allclose(images[NAMES[0]], np.repeat(grey[..., None], 3, 2) / 255)
    assert np.allclose(images[NAMES[1]], images[NAMES[0]], atol=1e-6)
    assert np.allclose(images[NAMES[2]], levels / 255 * 0.2, atol=1e-6)


def test_sizes_may_be_mixed(folder: Path) -> None:
    path, placed = folder / "images" / NAMES[5], cameras()
    Image.open(path).resize((112, 96)).save(path)
    placed[NAMES[5]] = placed[NAMES[5]].resized(112, 96)
    write_model(folder / "sparse" / "0", placed)
    view = Dataset.read(folder).views[5]
    assert view.image()[0].shape == (96, 112, 3)
    assert view.camera.K[0, 0] == 120


def test_whole_capture_that_was_shrunk_keeps_its_rays(folder: Path) -> None:
    for name in NAMES:
        path = folder / "images" / name
        Image.open(path).resize((28, 24)).save(path)
    for view in Dataset.read(folder).views:
        assert (view.camera.width, view.camera.height, view.camera.K[0, 0]) == (28, 24, 30)


@pytest.mark.parametrize("camera_is_rotated", [False, True])
def test_exif_orientation_follows_the_camera(folder: Path, camera_is_rotated: bool) -> None:
    """COLMAP reads pixels as they are stored; other tools rotate them first."""
    path, placed = folder / "images" / NAMES[0], cameras()
    stored = Image.open(path).transpose(Image.Transpose.ROTATE_90) if camera_is_rotated else None
    tags = Image.Exif()
    tags[0x0112] = 6
    (stored or Image.open(path)).save(path, exif=tags)
    write_model(folder / "sparse" / "0", placed)
    view = Dataset.read(folder).views[0]
    assert view.upright is camera_is_rotated
    width, height = view.camera.width, view.camera.height
    assert view.image()[0].shape == (height, width, 3)
    expected = read_image(path, upright=camera_is_rotated)
    assert np.array_equal(view.image()[0], expected)


def test_size_that_contradicts_its_camera_is_refused(folder: Path) -> None:
    for name in NAMES[:2]:
        path = folder / "images" / name
        Image.open(path).resize((60, 48)).save(path)
    with pytest.raises(UserError) as raised:
        Dataset.read(folder)
    message = str(raised.value)
    assert message.count("60x48 px") == 2, "all contradictions are named at once"
    assert "expected 56x48 px" in message


def test_missing_images_of_the_model_are_named(folder: Path) -> None:
    path = folder / "images" / NAMES[0]
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    with pytest.raises(UserError) as raised:
        Dataset.read(folder)
    message = str(raised.value)
    assert "1 of 8 images that it names are not below images/: LEFT/00_LEFT.png" in message
    assert "is LEFT/00_LEFT.jpg meant by LEFT/00_LEFT.png?" in message


def test_truncated_image_is_named(folder: Path) -> None:
    path = folder / "images" / NAMES[2]
    path.write_bytes(path.read_bytes()[:300])
    view = Dataset.read(folder).views[2]
    with pytest.raises(UserError, match=r"02_LEFT\.png: not a whole image"):
        view.image()


def test_images_without_a_model_need_calibration(folder: Path) -> None:
    shutil.rmtree(folder / "sparse")
    with pytest.raises(UserError, match=r"stages\.capture_calibrate"):
        Dataset.read(folder)


@pytest.mark.parametrize("left", [[], ["sparse"], ["images", "sparse"]])
def test_folder_without_images_is_refused(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / "room" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=r"no such folder|no folder images|no image in it"):
        image_paths(tmp_path / "room")


def test_camera_of_another_model_is_undistorted(folder: Path) -> None:
    """One camera of the dataset has a lens; the others stay as they are."""

    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    bent = pycolmap.Camera(
        camera_id=1,
        model="OPENCV",
        width=56,
        height=48,
        params=[60, 60, 28, 24, -0.1, 0.01, 0, 0],
    )
    model.cameras[1] = bent
    model.write_binary(str(folder / "sparse" / "0"))
    first, second = Dataset.read(folder).views[:2]
    assert first.lens.model == "OPENCV"
    assert first.image()[0].shape == (first.camera.height, first.camera.width, 3)
    assert (first.camera.width, first.camera.height) != (56, 48)
    assert second.camera.width == 56
    assert replace(second.camera, K=None).name == NAMES[1]


@pytest.mark.parametrize("place", ["sparse", "sparse/1", "colmap/sparse/0", "colmap/sparse", "."])
def test_model_may_be_in_other_folders(folder: Path, place: str) -> None:
    files = {path.name: path.read_bytes() for path in (folder / "sparse" / "0").iterdir()}
    shutil.rmtree(folder / "sparse")
    (folder / place).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / place / name).write_bytes(data)
    dataset = Dataset.read(folder)
    assert dataset.model == folder / place
    assert len(dataset.views) == len(NAMES)


def test_the_chosen_one_of_several_models_is_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = folder / "sparse" / "0"
    shutil.copytree(whole, folder / "sparse" / "1")
    write_model(whole, dict(list(cameras().items())[:3]))
    Dataset.read(folder).log_notes()
    assert "sparse/0 is used, with 3 images; beside it 1 has 8. 1 is larger" in caplog.text
    caplog.clear()
    whole.rename(folder / "sparse" / "2")
    assert Dataset.read(folder).model == folder / "sparse" / "1"
    Dataset.read(folder).log_notes()
    (message,) = caplog.messages
    assert message.endswith("sparse/1 is used, with 8 images; beside it 2 has 3")


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("file", "at", "values", "says"),
    [
        ("cameras", 32, [NAN], "camera 1: NaN or infinity"),
        ("cameras", 32, [0.0], "camera 1: a focal length of 0 px"),
        ("cameras", 40, [-60.0], "camera 1: a focal length of -60 px"),
        ("frames", 16, [0.0] * 4, "a pose whose quaternion is zero"),
        ("frames", 16, [NAN], "a pose with NaN or infinity"),
        ("frames", 48, [INF], "a pose with NaN or infinity"),
        ("frames", 48, [1e300], "numbers above 1e"),
        ("images", 12, [0.0] * 4, "a pose whose quaternion is zero"),
        ("images", 44, [NAN], "a pose with NaN or infinity"),
        ("points3D", 16, [NAN], "1 of 160 points are not finite"),
    ],
)
def test_numbers_of_a_model_are_checked(
    folder: Path, file: str, at: int, values: list[float], says: str
) -> None:
    model = folder / "sparse" / "0"
    if file == "images":  # models of former versions have the poses there
        for name in ("frames", "rigs"):
            (model / f"{name}.bin").unlink()
    data = bytearray((model / f"{file}.bin").read_bytes())
    struct.pack_into(f"<{len(values)}d", data, at, *values)
    (model / f"{file}.bin").write_bytes(data)
    with pytest.raises(UserError, match=says) as caught:
        Dataset.read(folder)
    assert "sparse/0" in str(caught.value)
    assert "fix: " in str(caught.value)


@pytest.mark.parametrize(
    ("file", "at"), [("cameras", 8), ("images", 68), ("frames", 12), ("frames", 84)]
)
def test_dangling_references_are_no_model(folder: Path, file: str, at: int) -> None:
    path = folder / "sparse" / "0" / f"{file}.bin"
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, at, 99)
    path.write_bytes(data)
    with pytest.raises(UserError, match="no COLMAP model"):
        Dataset.read(folder)


def test_model_without_points_is_enough(folder: Path) -> None:
    write_model(folder / "sparse" / "0", cameras())
    assert Dataset.read(folder).points.shape == (0, 3)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_truncated_file_is_named(folder: Path, name: str) -> None:
    path = folder / "sparse" / "0" / f"{name}.bin"
    whole = path.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], b"", b"\xff" * 8 + whole[8:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}\.bin: no COLMAP model can be read"):
            Dataset.read(folder)
