"""COLMAP models of any cameras, and undistortion of their images.

Every camera model that COLMAP calls perspective becomes a pinhole camera of the same focal length.
The undistorted image has COLMAP's size, the largest without pixels from outside the image, if that
covers four fifths of the image or more. Otherwise it shows the whole valid region of the lens, at
most twice the image's size, and invalid pixels are masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from stages.run.errors import UserError
from stages.run.plurals import counted, first_few
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import open_model, points_and_colors
from stages.scenes.colmap_import import pycolmap
from stages.scenes.formats.colmap_binary import count_images
from stages.scenes.images import Mask, Pixels
from stages.scenes.lenses.valid_region import ValidRegion, covered_share, inside, is_valid

_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
_FILES = ("cameras", "images", "points3D")
# Not pinholes even without coefficients.
_NON_PERSPECTIVE = ("FISHEYE", "EQUIRECTANGULAR")


@dataclass(frozen=True)
class Lens:
    """Intrinsics of a COLMAP camera, for images of one size."""

    model: str
    params: tuple[float, ...]
    width: int  # px
    height: int  # px

    def resized(self, width: int, height: int) -> "Lens":
        """The same lens for resized images."""
        if (width, height) == (self.width, self.height):
            return self
        camera = self._colmap()
        camera.rescale(width, height)
        return Lens(self.model, tuple(map(float, camera.params)), width, height)

    @property
    def distorted(self) -> bool:
        """Whether the lens has distortion."""
        return not _is_pinhole(self._colmap())

    def pinhole(self, *, crop: bool = False) -> tuple[Array, int, int]:
        """K [3, 3], width and height of the undistorted images.

        With `crop` all their pixels are valid, and none is masked.
        """
        target = _undistorted(self, crop)
        return target.K, target.width, target.height

    def share(self) -> float:
        """The share of an image's area that its undistorted image shows."""
        return _undistorted(self, False).share

    @property
    def masked(self) -> bool:
        """Whether undistorted images have pixels from outside the image."""
        return _undistorted(self, False).region is not None

    def undistort(self, image: Pixels, *, crop: bool = False) -> tuple[Pixels, Mask | None]:
        """The image [H, W, 3] of the pinhole camera, and its valid pixels [H, W].

        The mask is None when all pixels are valid.
        """
        if not self.distorted:
            return image, None
        at, valid = _sample_positions(self, crop)
        planes = [
            map_coordinates(plane, at, order=1, mode="nearest")
            for plane in np.moveaxis(image, -1, 0)
        ]
        return np.stack(planes, axis=-1), valid

    def distort(self, points: Array) -> Array:
        """Points [N, 2] of the plane at depth 1 to pixels [N, 2] of the image."""
        return self._colmap().img_from_cam(np.column_stack([points, np.ones(len(points))]))

    def _colmap(self) -> "pycolmap.Camera":
        return pycolmap.Camera(
            camera_id=1,
            model=self.model,
            width=self.width,
            height=self.height,
            params=list(self.params),
        )


def plane_points(camera: "pycolmap.Camera", pixels: Array) -> Array:
    """Points [N, 2] of the plane at depth 1 that a camera shows at pixels [N, 2].

    NaN where it shows none: a strong barrel distortion folds back before the border of the image.
    """
    return np.array(camera.cam_from_img(pixels.astype(np.float64))).reshape(-1, 2)


_OPTIONS = pycolmap.UndistortCameraOptions()
# With a smaller share of the image, COLMAP's size is replaced by that of the whole valid region,
# with sides of at most so many times the image's.
_MIN_COLMAP_SHARE, _MAX_SIDE_RATIO = 0.8, 2.0
_MAX_TANGENT = 10.0  # of the angle from the optical axis, 84 degrees
_LINES = 33  # per side of the grid that an undistorted image is checked on
_MIN_SIDE_PX, _MIN_SHARE = 6, 0.01  # of a usable undistorted image


@dataclass(frozen=True, eq=False)
class _Undistorted:
    """Intrinsics of a lens's undistorted images; `region` is set if not all pixels are valid."""

    K: Array  # [3, 3]
    width: int
    height: int
    share: float
    region: ValidRegion | None = None


@lru_cache(maxsize=4096)
def _undistorted(lens: Lens, crop: bool) -> _Undistorted:
    """COLMAP's choice if it covers most of the image and is valid everywhere, else the region's.

    Raises ValueError for a lens that no pinhole camera can replace.
    """
    distorted = lens._colmap()
    if _is_pinhole(distorted):
        return _Undistorted(distorted.calibration_matrix(), distorted.width, distorted.height, 1.0)
    colmap, size = pycolmap.undistort_camera(_OPTIONS, distorted), (lens.width, lens.height)
    K = colmap.calibration_matrix()
    focal, centre = K[[0, 1], [0, 1]], K[:2, 2]
    corners = np.array([-centre, np.array([colmap.width, colmap.height]) - centre]) / focal
    share = covered_share(lens.distort, corners, size, None)
    all_valid = is_valid(lens.distort, focal, _grid(corners)).all()
    if all_valid and (crop or share >= _MIN_COLMAP_SHARE):
        return _Undistorted(K, colmap.width, colmap.height, share)
    max_radius = min(_MAX_TANGENT, _MAX_SIDE_RATIO * float(np.linalg.norm(np.array(size) / focal)))
    region = ValidRegion.of(lens.distort, focal, max_radius)
    if region.radii.min() <= 0:
        raise ValueError("its distortion is not invertible at the optical axis")
    if crop:
        corners = _valid_corners(lens, region, corners)
    else:
        border = region.image_border(lens.distort, *size)
        corners = np.stack([border.min(axis=0), border.max(axis=0)])
        sides = np.maximum((corners[1] - corners[0]) * focal, 1e-9)
        corners *= np.minimum(1, _MAX_SIDE_RATIO * np.array(size) / sides)
    width, height = map(int, np.maximum(np.rint((corners[1] - corners[0]) * focal), 1))
    K[:2, 2] = -corners[0] * focal
    share = covered_share(lens.distort, corners, size, region)
    return _Undistorted(K, width, height, share, region)


def _valid_corners(lens: Lens, region: ValidRegion, corners: Array) -> Array:
    """Corners [2, 2] of the largest rectangle of the same shape in which all points are valid."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        points = _grid(middle * corners)
        fits = region.contains(points) & inside(lens.distort(points), lens.width, lens.height)
        low, high = (middle, high) if fits.all() else (low, middle)
    return low * corners


def _grid(corners: Array) -> Array:
    """A grid of points [N, 2] over a rectangle, its edges included."""
    lines = [np.linspace(*corners[:, axis], _LINES) for axis in (0, 1)]
    return np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 2)


@lru_cache(maxsize=1)  # large arrays; images of one lens follow each other
def _sample_positions(lens: Lens, crop: bool) -> tuple[tuple[Array, Array], Mask | None]:
    """Row and column [H, W] in the distorted image for each pixel, and which pixels are valid."""
    target = _undistorted(lens, crop)
    (fx, _, cx), (_, fy, cy), _ = target.K
    rows, columns = np.mgrid[0 : target.height, 0 : target.width] + 0.5
    plane = np.stack([(columns - cx) / fx, (rows - cy) / fy], axis=-1)
    pixels = lens.distort(plane.reshape(-1, 2)).reshape(plane.shape)
    valid = inside(pixels, lens.width, lens.height)
    if target.region is not None:
        valid &= target.region.contains(plane)
    x, y = np.nan_to_num(pixels - 0.5).transpose(2, 0, 1)
    return (y, x), None if valid.all() else valid


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image with a pose in the model."""

    name: str
    lens: Lens
    cam_from_world: Array  # [4, 4]

    def camera(self, lens: Lens) -> Camera:
        """The pinhole camera of this image as taken with `lens`."""
        K, width, height = lens.pinhole()
        return Camera(self.name, K, self.cam_from_world, width, height)


@dataclass(frozen=True, eq=False)
class PosedModel:
    """A COLMAP model: posed images by name, names without a pose, and coloured points."""

    images: dict[str, PosedImage]
    unposed: tuple[str, ...]
    points: Array  # [P, 3]
    colors: NDArray[np.uint8]  # [P, 3]


def find_model(root: Path) -> Path | None:
    """The folder with a dataset's model; None if there is none.

    `sparse/0`, else `sparse`, else the numbered folder in `sparse` with most images, else the same
    below `colmap`, else files beside `images`. Raises UserError when `sparse` has no model in it.
    """
    for sparse in (root / "sparse", root / "colmap" / "sparse"):
        standard = [folder for folder in (sparse / "0", sparse) if _is_model(folder)]
        models = standard or sorted(_numbered(sparse), key=lambda part: (-count_images(part), part))
        if models:
            return models[0]
    if _is_model(root):
        return root
    sparse = root / "sparse"
    if not sparse.exists():
        return None
    files = sorted(path.relative_to(sparse).as_posix() for path in sparse.rglob("*"))
    raise UserError(
        sparse,
        f"no COLMAP model in it; it contains {first_few(files) or 'nothing'}",
        expected="cameras, images and points3D, as .bin or .txt, in sparse/0 or sparse",
        fix="copy the model again, or remove the folder to have the poses estimated",
    )


def other_models_note(model: Path) -> str:
    """A note on other models beside a model, as mappers write them; empty without any."""
    counts = {part.name: count_images(part) for part in sorted(_numbered(model.parent))}
    others = [f"{name} has {count}" for name, count in counts.items() if name != model.name]
    if model.name not in counts or not others:
        return ""
    images = counted(counts[model.name], "image")
    note = f"{model} is used, with {images}; beside it {', '.join(others)}"
    if counts[model.name] == max(counts.values()):
        return note
    largest = max(counts, key=lambda name: counts[name])
    return f"{note}. {largest} is larger: to use it, move it to {model.parent / '0'}"


def _numbered(sparse: Path) -> list[Path]:
    return [path for path in sparse.glob("*") if path.name.isdigit() and _is_model(path)]


def _is_model(folder: Path) -> bool:
    return all(_has(folder, name) for name in _FILES)


def read_posed(folder: Path) -> PosedModel:
    """Read a COLMAP model of any cameras.

    Raises UserError for a damaged model, for one without posed images, and for a camera that no
    pinhole camera can replace.
    """
    model = open_model(folder)
    posed = {
        image.name: PosedImage(
            image.name, _lens(model.cameras[image.camera_id], folder), _pose(image)
        )
        for image in sorted(model.images.values(), key=lambda image: image.name)
        if image.has_pose
    }
    if not posed:
        raise UserError(
            folder,
            f"0 of {len(model.images)} images registered",
            expected="a model with poses",
            fix="remove the folder to have the poses estimated from the images",
        )
    unposed = tuple(sorted(image.name for image in model.images.values() if not image.has_pose))
    return PosedModel(posed, unposed, *points_and_colors(model, folder))


def write_posed(
    folder: Path, images: Sequence[PosedImage], points: Array, colors: NDArray[np.uint8]
) -> None:
    """Write a binary COLMAP model; images of equal lenses share a camera, points have no tracks."""
    model, numbers = pycolmap.Reconstruction(), {}
    for number, image in enumerate(images, start=1):
        if image.lens not in numbers:
            numbers[image.lens] = len(numbers) + 1
            camera = image.lens._colmap()
            camera.camera_id = numbers[image.lens]
            model.add_camera_with_trivial_rig(camera)
        colmap_image = pycolmap.Image(
            name=image.name, camera_id=numbers[image.lens], image_id=number
        )
        model.add_image_with_trivial_frame(colmap_image, pycolmap.Rigid3d(image.cam_from_world[:3]))
    for xyz, color in zip(points, colors, strict=True):
        model.add_point3D(xyz, pycolmap.Track(), color)
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def _has(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{suffix}").is_file() for suffix in (".bin", ".txt"))


def _is_pinhole(camera: "pycolmap.Camera") -> bool:
    if camera.model_name in _PINHOLES:
        return True
    return camera.is_undistorted() and not any(
        kind in camera.model_name for kind in _NON_PERSPECTIVE
    )


def _pose(image: "pycolmap.Image") -> Array:
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().matrix()
    return pose


def _lens(camera: "pycolmap.Camera", where: Path) -> Lens:
    lens = Lens(camera.model_name, tuple(map(float, camera.params)), camera.width, camera.height)
    try:
        _, width, height = lens.pinhole()
        if lens.distorted and (min(width, height) < _MIN_SIDE_PX or lens.share() < _MIN_SHARE):
            raise ValueError("its undistorted image shows almost nothing of the image")
    except (ValueError, RuntimeError) as error:
        params = ", ".join(f"{value:g}" for value in camera.params)
        raise UserError(
            where,
            f"camera {camera.camera_id}, {camera.model_name} of {params}: no pinhole",
            expected="a camera that a pinhole camera can replace, perspective or fisheye",
        ) from error
    return lens
