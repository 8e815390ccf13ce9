"""How far lenses are straightened: closed forms, a dense search, and COLMAP's own inverse."""

import numpy as np
import pycolmap
import pytest

from stages.scenes.colmap_lenses import Lens
from stages.scenes.lenses.valid_region import MAX_STRETCH, ValidRegion, covered_share, inside

WIDTH, HEIGHT = 56, 48
FOLDING = ("SIMPLE_RADIAL", (28.0, 28.0, 24.0, -0.3))
FISHEYE = ("RADIAL_FISHEYE", (16.0, 28.0, 24.0, 0.0, 0.0))
# Strongly distorted lenses of every model that bends: some fold, some see behind themselves.
STRONG = {
    "folding": FOLDING,
    "fisheye": FISHEYE,
    "radial": ("RADIAL", (28.0, 28.0, 24.0, -0.6, 0.1)),
    "pincushion": ("RADIAL", (28.0, 28.0, 24.0, 0.4, 0.2)),
    "opencv": ("OPENCV", (28.0, 30.0, 26.0, 25.0, -0.35, 0.02, 0.01, -0.01)),
    "full opencv": ("FULL_OPENCV", (28.0,) * 3 + (24.0, -0.3, 0.1, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0)),
    "fov": ("FOV", (20.0, 20.0, 28.0, 24.0, 1.5)),
    "division": ("DIVISION", (20.0, 20.0, 28.0, 24.0, -0.9)),
    "simple division": ("SIMPLE_DIVISION", (20.0, 28.0, 24.0, -0.9)),
    "eucm": ("EUCM", (20.0, 20.0, 28.0, 24.0, 0.6, 1.0)),
    "plain fisheye": ("FISHEYE", (16.0, 17.0, 28.0, 24.0)),
    "simple fisheye": ("SIMPLE_FISHEYE", (16.0, 28.0, 24.0)),
    "radial fisheye": ("SIMPLE_RADIAL_FISHEYE", (16.0, 28.0, 24.0, -0.2)),
    "opencv fisheye": ("OPENCV_FISHEYE", (16.0, 16.0, 28.0, 24.0, 0.1, -0.05, 0.0, 0.0)),
    "prism": (
        "THIN_PRISM_FISHEYE",
        (16.0, 16.0, 28.0, 24.0, 0.02, -0.01, 0.001, 0.001, 0.0, 0.0, 0.01, 0.01),
    ),
    "tangential prism": (
        "RAD_TAN_THIN_PRISM_FISHEYE",
        (16.0, 16.0, 28.0, 24.0, 0.02, -0.01, *(0.0,) * 4, *(0.005,) * 6),
    ),
}


def lens(name: str) -> Lens:
    return Lens(*STRONG[name], WIDTH, HEIGHT)


def plane_of(distorted: Lens, *, crop: bool = False) -> np.ndarray:
    """Points [H, W, 2] of the plane at depth 1 that the pixels of the undistorted show."""
    K, width, height = distorted.pinhole(crop=crop)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]], axis=-1)


@pytest.mark.parametrize("k", [-0.05, -0.3, -2.0])
def test_valid_region_of_one_coefficient_is_known(k: float) -> None:
    """r + k r^3 is stretched tenfold where 1 + 3 k r^2 is a tenth."""
    distorted = Lens("SIMPLE_RADIAL", (30.0, 0.0, 0.0, k), 10, 10)
    region = ValidRegion.of(distorted.distort, np.array([30.0, 30.0]), 10.0)
    assert np.allclose(region.radii, np.sqrt((1 - 1 / MAX_STRETCH) / (-3 * k)), rtol=1e-4)
    assert region.radii.max() < np.sqrt(1 / (-3 * k)), "the lens turns back there"


def test_valid_region_of_a_plain_fisheye_is_known() -> None:
    """The angle's derivative by its tangent is the squared cosine."""
    region = ValidRegion.of(lens("simple fisheye").distort, np.array([16.0, 16.0]), 10.0)
    assert np.allclose(region.radii, np.sqrt(MAX_STRETCH - 1), rtol=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", ["RADIAL", "OPENCV_FISHEYE", "FULL_OPENCV", "THIN_PRISM_FISHEYE"])
def test_valid_region_is_where_a_dense_search_ends(model: str, seed: int) -> None:
    """Distances from the axis grow along every ray, and soon stop beyond the region."""
    rng = np.random.default_rng(seed)
    blank = pycolmap.Camera.create_from_model_name(1, model, 20.0, WIDTH, HEIGHT)
    bends = np.clip(0.2 * rng.normal(size=len(blank.params) - 4), -0.4, 0.4)
    if model == "THIN_PRISM_FISHEYE":
        bends[2:] *= 0.02  # decentring is small in any lens
    if model == "FULL_OPENCV":
        bends[2:4] *= 0.02
    distorted = Lens(model, (20.0, 20.0, 28.0, 24.0, *bends.tolist()), WIDTH, HEIGHT)
    max_radius = 6.0
    region = ValidRegion.of(distorted.distort, np.array([20.0, 20.0]), max_radius)
    radii = np.linspace(0, max_radius, 6001)
    for number in range(0, 360, 40):
        angle = region.angles[number]
        ray = radii[:, None] * [np.cos(angle), np.sin(angle)]
        away = (
            np.linalg.norm(distorted.distort(ray) - distorted.distort(np.zeros((1, 2))), axis=1)
            / 20
        )
        growth = np.diff(away) / np.diff(radii)
        within = radii[1:] < region.radii[number]
        assert (growth[within] > 0.5 / MAX_STRETCH).all()
        if region.radii[number] < max_radius - 0.05:
            just = np.flatnonzero(~within)[:12]
            tangential = away[just] / radii[just]
            assert np.minimum(growth[just], tangential).min() < 1.5 / MAX_STRETCH


@pytest.mark.parametrize("name", STRONG)
def test_what_counts_is_shown_once(name: str) -> None:
    """COLMAP's own inverse leads from the image back to each pixel that counts."""
    distorted = lens(name)
    plane, (_, valid) = (
        plane_of(distorted),
        distorted.undistort(np.zeros((HEIGHT, WIDTH, 3), np.float32)),
    )
    valid = np.ones(plane.shape[:2], bool) if valid is None else valid
    pixels = distorted.distort(plane[valid])
    assert inside(pixels, WIDTH, HEIGHT).all()
    camera = pycolmap.Camera(
        model=distorted.model, width=WIDTH, height=HEIGHT, params=distorted.params
    )
    back = camera.cam_from_img(pixels)
    again = distorted.distort(back)
    assert np.allclose(again, pixels, atol=1e-3)
    assert np.median(np.linalg.norm(back - plane[valid], axis=1)) < 1e-4
    assert (np.linalg.norm(back - plane[valid], axis=1) < 0.05).mean() > 0.99


@pytest.mark.parametrize("name", STRONG)
def test_undistorted_image_is_what_a_pinhole_camera_sees(name: str) -> None:
    """Of a image that shows where each of its pixels lies, so that nothing is inverted."""
    distorted = lens(name)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    image = np.stack([columns, rows, rows + columns], axis=-1).astype(np.float32)
    for crop in (False, True):
        undistorted, valid = distorted.undistort(image, crop=crop)
        assert valid is None or not crop
        plane = plane_of(distorted, crop=crop)
        expected = distorted.distort(plane.reshape(-1, 2)).reshape(plane.shape)
        within = np.all((expected > 0.5) & (expected < [WIDTH - 0.5, HEIGHT - 0.5]), axis=-1)
        within &= True if valid is None else valid
        assert np.allclose(undistorted[within][:, :2], expected[within], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "radius_px"),
    [("folding", 28 * (1 - 0.3) * 1.0), ("fisheye", 16 * np.arctan(3.0))],
)
def test_share_is_the_circle_that_can_be_undistorted(name: str, radius_px: float) -> None:
    area = np.pi * radius_px**2 / (WIDTH * HEIGHT)
    assert lens(name).share() == pytest.approx(area, rel=0.02)
    assert lens(name).masked


def test_a_image_of_all_the_image_has_a_share_of_one() -> None:
    corners = np.array([[-1.0, -1.0], [1.0, 1.0]])
    assert covered_share(lambda at: 20 * at + 20, corners, (40, 40), None) == pytest.approx(1)
    assert covered_share(lambda at: 20 * at + 20, corners / 2, (40, 40), None) == pytest.approx(
        0.25
    )


@pytest.mark.parametrize("name", STRONG)
def test_no_image_is_larger_than_twice_the_image(name: str) -> None:
    _, width, height = lens(name).pinhole()
    assert width <= 2 * WIDTH
    assert height <= 2 * HEIGHT
    _, width, height = lens(name).pinhole(crop=True)
    assert min(width, height) > 4


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("OPENCV", (44.0, 44.0, 28.0, 24.0, -0.08, 0.01, 0.001, -0.001)),
        ("SIMPLE_RADIAL", (50.0, 28.0, 24.0, -0.1)),
        ("OPENCV_FISHEYE", (50.0, 50.0, 28.0, 24.0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_usual_lenses_have_colmaps_image(model: str, params: tuple[float, ...]) -> None:
    distorted = Lens(model, params, WIDTH, HEIGHT)
    camera = pycolmap.Camera(camera_id=1, model=model, width=WIDTH, height=HEIGHT, params=params)
    expected = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    K, width, height = distorted.pinhole()
    assert np.array_equal(K, expected.calibration_matrix())
    assert (width, height) == (expected.width, expected.height)
    assert distorted.share() > 0.8
    assert not distorted.masked
