"""Lenses of COLMAP: each model distorts a known image, and undistortion inverts it."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import rigid, rotation_from_vector
from stages.scenes.colmap_lenses import Lens, find_model, plane_points, read_posed

WIDTH, HEIGHT, FOCAL = 96, 72, 80.0
BENDS = {
    "SIMPLE_RADIAL": (-0.12,),
    "RADIAL": (-0.1, 0.02),
    "OPENCV": (-0.1, 0.01, 0.004, -0.003),
    "FULL_OPENCV": (-0.1, 0.01, 0.004, -0.003, 0.01, 0.02, 0.0, 0.0),
    "SIMPLE_DIVISION": (-0.1,),
    "DIVISION": (-0.1,),
    "FOV": (0.4,),
    "EUCM": (0.3, 1.0),
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "SIMPLE_RADIAL_FISHEYE": (0.02,),
    "RADIAL_FISHEYE": (0.02, -0.01),
    "OPENCV_FISHEYE": (0.02, -0.01, 0.003, 0.0),
    "THIN_PRISM_FISHEYE": (0.02, -0.01, 0.001, 0.001, 0.0, 0.0, 0.001, 0.001),
    "RAD_TAN_THIN_PRISM_FISHEYE": (0.02, -0.01, *(0.0,) * 4, 0.001, 0.001, *(0.001,) * 4),
}


def lens(model: str) -> Lens:
    info = pycolmap.Camera.create_from_model_name(1, model, FOCAL, WIDTH, HEIGHT)
    focals = info.params[: len(info.params) - 2 - len(BENDS[model])]
    return Lens(model, (*map(float, focals), WIDTH / 2, HEIGHT / 2, *BENDS[model]), WIDTH, HEIGHT)


def colors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth image over the plane at depth 1."""
    parts = [np.sin(5 * x + 1), np.cos(4 * y), np.sin(3 * (x + y))]
    return (0.5 + 0.4 * np.stack(parts, axis=-1)).astype(np.float32)


@pytest.mark.parametrize("model", BENDS)
def test_undistorted_image_is_what_a_pinhole_camera_sees(model: str) -> None:
    distorted = lens(model)
    camera = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=list(distorted.params))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    rays = camera.cam_from_img(np.stack([columns.ravel(), rows.ravel()], axis=-1))
    image_with_distortion = colors(*rays.T).reshape(HEIGHT, WIDTH, 3)
    K, width, height = distorted.pinhole()
    image, valid = distorted.undistort(image_with_distortion)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.float32
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    truth = colors((columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1])
    inside = np.ones((height, width), bool) if valid is None else valid
    assert inside.mean() > 0.95
    assert np.abs(image - truth)[inside].max() < 0.02
    plain = np.abs(image_with_distortion[:60, :80] - truth[:60, :80]).max()
    assert plain > 0.03, "the lens bends so little that the test shows nothing"


def test_pixels_beyond_the_fold_of_a_distortion_have_no_point() -> None:
    """At 1.5 times the optical axis' scale the radius x (1 - x^2) is largest, 0.385."""
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=[100.0, 48, 36, -1.0]
    )
    points = np.array([[0.0, 0.0], [0.2, 0.1], [-0.3, 0.3]])
    pixels = camera.img_from_cam(np.column_stack([points, np.ones(3)]))
    assert plane_points(camera, pixels) == pytest.approx(points, abs=1e-6)
    beyond = plane_points(camera, np.array([[48.0 + 38.0, 36.0], [48.0 + 39.0, 36.0]]))
    assert np.isfinite(beyond).all(axis=1).tolist() == [True, False]
    assert plane_points(camera, np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_pinhole_images_are_left_alone() -> None:
    image = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    for model, params in (("PINHOLE", (80.0, 81.0, 48.0, 36.0)), ("SIMPLE_PINHOLE", (80, 48, 36))):
        undistorted, valid = Lens(model, params, WIDTH, HEIGHT).undistort(image)
        assert undistorted is image
        assert valid is None


def test_resized_lens_sees_the_same_rays() -> None:
    small = lens("OPENCV").resized(WIDTH // 2, HEIGHT // 2)
    assert small.params[:4] == (FOCAL / 2, FOCAL / 2, WIDTH / 4, HEIGHT / 4)
    assert small.params[4:] == BENDS["OPENCV"]


def write(folder: Path, camera: "pycolmap.Camera", poses: int, text: bool = False) -> None:
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    for number in range(1, poses + 1):
        image = pycolmap.Image(name=f"{number}.png", camera_id=1, image_id=number)
        pose = rigid(rotation_from_vector([0, 0.1 * number, 0]), [0.5 * number, 0, 2])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    folder.mkdir(parents=True)
    (model.write_text if text else model.write_binary)(str(folder))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("place", ["sparse", "sparse/0"])
def test_both_folders_and_both_formats_are_read(tmp_path: Path, place: str, text: bool) -> None:
    camera = pycolmap.Camera(
        camera_id=1, model="OPENCV", width=WIDTH, height=HEIGHT, params=list(lens("OPENCV").params)
    )
    write(tmp_path / place, camera, poses=2, text=text)
    assert find_model(tmp_path) == tmp_path / place
    model = read_posed(tmp_path / place)
    assert list(model.images) == ["1.png", "2.png"]
    assert model.images["2.png"].lens == lens("OPENCV")
    expected = rigid(rotation_from_vector([0, 0.2, 0]), [1.0, 0, 2])
    assert np.allclose(model.images["2.png"].cam_from_world, expected, atol=1e-9)


def test_a_missing_model_differs_from_an_empty_one(tmp_path: Path) -> None:
    assert find_model(tmp_path) is None
    (tmp_path / "sparse").mkdir()
    with pytest.raises(UserError, match="it contains nothing"):
        find_model(tmp_path)


def test_model_without_a_pose_is_refused(tmp_path: Path) -> None:
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=9, height=9, params=[9, 9, 4, 4])
    write(tmp_path / "sparse", camera, poses=0)
    with pytest.raises(UserError, match="0 of 0 images registered"):
        read_posed(tmp_path / "sparse")


def test_panorama_is_no_pinhole(tmp_path: Path) -> None:
    camera = pycolmap.Camera.create_from_model_name(1, "EQUIRECTANGULAR", 1.0, 64, 32)
    write(tmp_path / "sparse", camera, poses=1)
    with pytest.raises(UserError, match="EQUIRECTANGULAR"):
        read_posed(tmp_path / "sparse")


@pytest.mark.parametrize("params", [[1e-3, 28, 24, 0.1], [30, 300, 24, -0.1], [30, 28, 24, 1e8]])
@pytest.mark.filterwarnings("error")
def test_lens_whose_image_shows_nothing_is_refused(tmp_path: Path, params: list[float]) -> None:
    camera = pycolmap.Camera(camera_id=1, model="SIMPLE_RADIAL", width=56, height=48, params=params)
    write(tmp_path / "sparse", camera, poses=1)
    with pytest.raises(UserError, match=r"SIMPLE_RADIAL of .*: no pinhole"):
        read_posed(tmp_path / "sparse")


@pytest.mark.filterwarnings("error")
def test_pole_of_a_rational_lens_warns_of_nothing() -> None:
    params = (40.0, 40.0, 28.0, 24.0, *(0.0,) * 5, -1.0, 0.0, 0.0)
    _, width, height = Lens("FULL_OPENCV", params, 56, 48).pinhole()
    assert min(width, height) > 24


def test_broken_file_is_named(tmp_path: Path) -> None:
    for name in ("cameras", "images", "points3D"):
        path = tmp_path / "sparse" / f"{name}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x05")
    with pytest.raises(UserError, match="no COLMAP model"):
        read_posed(tmp_path / "sparse")


def test_camera_larger_than_any_image_is_refused(tmp_path: Path) -> None:
    """COLMAP walks along the edge of an image to take its distortion out."""
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions())
    model.write_text(str(tmp_path))
    path = tmp_path / "cameras.txt"
    *head, line = path.read_text().rstrip().split("\n")
    number, kind, _, height, *params = line.split()
    path.write_text("\n".join([*head, " ".join([number, kind, "2000000000", height, *params])]))
    with pytest.raises(UserError, match="2000000000x"):
        read_posed(tmp_path)


def test_camera_of_a_focal_length_beyond_measure_is_refused(tmp_path: Path) -> None:
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions())
    model.write_text(str(tmp_path))
    path = tmp_path / "cameras.txt"
    *head, line = path.read_text().rstrip().split("\n")
    number, kind, width, height, _, *params = line.split()
    path.write_text("\n".join([*head, " ".join([number, kind, width, height, "1e25", *params])]))
    with pytest.raises(UserError, match=r"parameters up to 1e\+25"):
        read_posed(tmp_path)
