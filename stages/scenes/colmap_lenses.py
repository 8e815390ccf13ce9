"""Any COLMAP model with its lenses: reading it, and taking the distortion out of its images.

Every camera model that COLMAP calls perspective becomes a pinhole camera of the same focal length.
Its size is COLMAP's choice, the largest without pixels from outside the photograph, where that
shows four fifths of the photograph or more. Else it is as large as what can be straightened, up to
twice the photograph, and the pixels that the photograph does not show are masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import open_model, points_of
from stages.scenes.formats.colmap_binary import count_images
from stages.scenes.images import Mask, Pixels
from stages.scenes.lenses.valid_region import Reach, counts, inside, share

_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
_FILES = ("cameras", "images", "points3D")
# Without coefficients these are still no pinholes.
_BENT = ("FISHEYE", "EQUIRECTANGULAR")


@dataclass(frozen=True)
class Lens:
    """A camera as COLMAP states it, for images of one size."""

    model: str
    params: tuple[float, ...]
    width: int  # px
    height: int  # px

    def resized(self, width: int, height: int) -> "Lens":
        """The same lens for photographs that were shrunk or enlarged as a whole."""
        if (width, height) == (self.width, self.height):
            return self
        camera = self._colmap()
        camera.rescale(width, height)
        return Lens(self.model, tuple(map(float, camera.params)), width, height)

    @property
    def bent(self) -> bool:
        """Whether there is any distortion to take out."""
        return not _is_pinhole(self._colmap())

    def pinhole(self, *, whole: bool = False) -> tuple[Array, int, int]:
        """K [3, 3], width and height of the images without distortion.

        Those are `whole` where each pixel shall be one of the photograph, and none masked.
        """
        found = _straight(self, whole)
        return found.K, found.width, found.height

    def share(self) -> float:
        """The part of a photograph's area that its image without distortion shows."""
        return _straight(self, False).share

    @property
    def masked(self) -> bool:
        """Whether its images without distortion have pixels that the photograph does not show."""
        return _straight(self, False).reach is not None

    def undistort(self, image: Pixels, *, whole: bool = False) -> tuple[Pixels, Mask | None]:
        """The image [H, W, 3] that the pinhole camera would have taken.

        And the pixels that the photograph shows, [H, W], or None when all are.
        """
        if not self.bent:
            return image, None
        at, seen = _origins(self, whole)
        planes = [
            map_coordinates(plane, at, order=1, mode="nearest")
            for plane in np.moveaxis(image, -1, 0)
        ]
        return np.stack(planes, axis=-1), seen

    def bend(self, points: Array) -> Array:
        """Points [N, 2] of the plane at depth 1 to pixels [N, 2] of the photograph."""
        return self._colmap().img_from_cam(np.column_stack([points, np.ones(len(points))]))

    def _colmap(self) -> "pycolmap.Camera":
        return pycolmap.Camera(
            camera_id=1, model=self.model, width=self.width, height=self.height,
            params=list(self.params),
        )  # fmt: skip


_OPTIONS = pycolmap.UndistortCameraOptions()
# COLMAP's picture that shows less of the photograph gives way to one that shows all it can, with
# sides so many times the photograph's at most.
_ENOUGH, _LARGEST = 0.8, 2.0
_FARTHEST = 10.0  # tangent of the widest angle off the axis that is looked at, 84 degrees
_LINES = 33  # of the grid that a picture is looked over by
_LEAST_PX, _LEAST_SHARE = 6, 0.01  # a side, and of the photograph: less is of no use


@dataclass(frozen=True, eq=False)
class _Straight:
    """The pinhole picture of a lens, and what of it counts where not all does."""

    K: Array  # [3, 3]
    width: int
    height: int
    share: float
    reach: Reach | None = None


@lru_cache(maxsize=4096)
def _straight(lens: Lens, whole: bool) -> _Straight:
    """COLMAP's picture if it shows most of the photograph and nothing twice, else a better one.

    Raises ValueError for a lens that no pinhole camera can stand for.
    """
    given = lens._colmap()
    if _is_pinhole(given):
        return _Straight(given.calibration_matrix(), given.width, given.height, 1.0)
    usual, size = pycolmap.undistort_camera(_OPTIONS, given), (lens.width, lens.height)
    K = usual.calibration_matrix()
    focal, centre = K[[0, 1], [0, 1]], K[:2, 2]
    corners = np.array([-centre, np.array([usual.width, usual.height]) - centre]) / focal
    seen = share(lens.bend, corners, size, None)
    once = counts(lens.bend, focal, _grid(corners)).all()
    if once and (whole or seen >= _ENOUGH):
        return _Straight(K, usual.width, usual.height, seen)
    farthest = min(_FARTHEST, _LARGEST * float(np.linalg.norm(np.array(size) / focal)))
    reach = Reach.of(lens.bend, focal, farthest)
    if reach.radii.min() <= 0:
        raise ValueError("its distortion turns back in the middle")
    if whole:
        corners = _undivided(lens, reach, corners)
    else:
        ends = reach.shown(lens.bend, *size)
        corners = np.stack([ends.min(axis=0), ends.max(axis=0)])
        sides = np.maximum((corners[1] - corners[0]) * focal, 1e-9)
        corners *= np.minimum(1, _LARGEST * np.array(size) / sides)
    width, height = map(int, np.maximum(np.rint((corners[1] - corners[0]) * focal), 1))
    K[:2, 2] = -corners[0] * focal
    return _Straight(K, width, height, share(lens.bend, corners, size, reach), reach)


def _undivided(lens: Lens, reach: Reach, corners: Array) -> Array:
    """Corners [2, 2] of the largest picture of the same shape that has all its pixels."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        points = _grid(middle * corners)
        fits = reach.holds(points) & inside(lens.bend(points), lens.width, lens.height)
        low, high = (middle, high) if fits.all() else (low, middle)
    return low * corners


def _grid(corners: Array) -> Array:
    """Points [N, 2] all over a rectangle, its edges included."""
    lines = [np.linspace(*corners[:, axis], _LINES) for axis in (0, 1)]
    return np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 2)


@lru_cache(maxsize=1)  # photographs of one lens come after each other; these are as large
def _origins(lens: Lens, whole: bool) -> tuple[tuple[Array, Array], Mask | None]:
    """Row and column [H, W] in the photograph of each pixel, and which pixels it shows."""
    found = _straight(lens, whole)
    (fx, _, cx), (_, fy, cy), _ = found.K
    rows, columns = np.mgrid[0 : found.height, 0 : found.width] + 0.5
    plane = np.stack([(columns - cx) / fx, (rows - cy) / fy], axis=-1)
    pixels = lens.bend(plane.reshape(-1, 2)).reshape(plane.shape)
    seen = inside(pixels, lens.width, lens.height)
    if found.reach is not None:
        seen &= found.reach.holds(plane)
    x, y = np.nan_to_num(pixels - 0.5).transpose(2, 0, 1)
    return (y, x), None if seen.all() else seen


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image that the model gives a pose."""

    name: str
    lens: Lens
    cam_from_world: Array  # [4, 4]

    def camera(self, lens: Lens) -> Camera:
        """The pinhole camera of this image, photographed through `lens`."""
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
    """The folder with a dataset's model; None when there is none.

    `sparse/0`, else `sparse`, else the part of `sparse` with most images, else the same below
    `colmap`, else files beside `images`. Raises UserError when a folder `sparse` is there, but no
    model in it.
    """
    for sparse in (root / "sparse", root / "colmap" / "sparse"):
        usual = [folder for folder in (sparse / "0", sparse) if _is_model(folder)]
        found = usual or sorted(_parts(sparse), key=lambda part: (-count_images(part), part))
        if found:
            return found[0]
    if _is_model(root):
        return root
    sparse = root / "sparse"
    if not sparse.exists():
        return None
    files = sorted(path.relative_to(sparse).as_posix() for path in sparse.rglob("*"))[:6]
    raise UserError(
        sparse, f"no COLMAP model in it; it holds {', '.join(files) or 'nothing'}",
        expected="cameras, images and points3D, as .bin or .txt, in sparse/0 or sparse",
        fix="copy the model again, or remove the folder to have the poses estimated",
    )  # fmt: skip


def other_models_note(model: Path) -> str:
    """What to say of a model that has others beside it, as mappers leave them; else nothing."""
    counts = {part.name: count_images(part) for part in sorted(_parts(model.parent))}
    others = [f"{name} has {count}" for name, count in counts.items() if name != model.name]
    if model.name not in counts or not others:
        return ""
    told = f"{model} is taken, with {counts[model.name]} images; beside it {', '.join(others)}"
    if counts[model.name] == max(counts.values()):
        return told
    largest = max(counts, key=lambda name: counts[name])
    return f"{told}. {largest} is larger: to take it, move it to {model.parent / '0'}"


def _parts(sparse: Path) -> list[Path]:
    return [path for path in sparse.glob("*") if path.name.isdigit() and _is_model(path)]


def _is_model(folder: Path) -> bool:
    return all(_has(folder, name) for name in _FILES)


def read_posed(folder: Path) -> PosedModel:
    """Read a COLMAP model of any cameras.

    Raises UserError for a broken model, for one without a posed image, and for a camera that no
    pinhole camera can stand for.
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
            folder, f"0 of {len(model.images)} images registered",
            expected="a model with poses",
            fix="remove the folder to have the poses estimated from the photographs",
        )  # fmt: skip
    unposed = tuple(sorted(image.name for image in model.images.values() if not image.has_pose))
    return PosedModel(posed, unposed, *points_of(model, folder))


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
        made = pycolmap.Image(name=image.name, camera_id=numbers[image.lens], image_id=number)
        model.add_image_with_trivial_frame(made, pycolmap.Rigid3d(image.cam_from_world[:3]))
    for xyz, color in zip(points, colors, strict=True):
        model.add_point3D(xyz, pycolmap.Track(), color)
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def _has(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{suffix}").is_file() for suffix in (".bin", ".txt"))


def _is_pinhole(camera: "pycolmap.Camera") -> bool:
    if camera.model_name in _PINHOLES:
        return True
    return camera.is_undistorted() and not any(kind in camera.model_name for kind in _BENT)


def _pose(image: "pycolmap.Image") -> Array:
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().matrix()
    return pose


def _lens(camera: "pycolmap.Camera", where: Path) -> Lens:
    lens = Lens(camera.model_name, tuple(map(float, camera.params)), camera.width, camera.height)
    try:
        _, width, height = lens.pinhole()
        if lens.bent and (min(width, height) < _LEAST_PX or lens.share() < _LEAST_SHARE):
            raise ValueError("its picture shows next to nothing of the photograph")
    except (ValueError, RuntimeError) as error:
        params = ", ".join(f"{value:g}" for value in camera.params)
        raise UserError(
            where, f"camera {camera.camera_id}, {camera.model_name} of {params}: no pinhole",
            expected="a camera that a pinhole camera can stand for, perspective or fisheye",
        ) from error  # fmt: skip
    return lens
