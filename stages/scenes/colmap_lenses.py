"""Any COLMAP model with its lenses: reading it, and taking the distortion out of its images.

Every camera model that COLMAP calls perspective becomes a pinhole camera of the same focal length.
Its size is COLMAP's choice: the largest without pixels from outside the photograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import open_model
from stages.scenes.images import Mask, Pixels

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

    def pinhole(self) -> tuple[Array, int, int]:
        """K [3, 3], width and height of the images without distortion."""
        found = self._ideal()
        return found.calibration_matrix(), found.width, found.height

    def undistort(self, image: Pixels) -> tuple[Pixels, Mask | None]:
        """The image [H, W, 3] that the pinhole camera would have taken.

        And the pixels that lie in the photograph, [H, W], or None when all do.
        """
        given, ideal = self._colmap(), self._ideal()
        if _is_pinhole(given):
            return image, None
        fx, fy, cx, cy = ideal.params
        rows, columns = np.mgrid[0 : ideal.height, 0 : ideal.width] + 0.5
        rays = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones_like(rows)], axis=-1)
        x, y = given.img_from_cam(rays.reshape(-1, 3)).reshape(*rows.shape, 2).transpose(2, 0, 1)
        inside = (x >= 0) & (y >= 0) & (x <= self.width) & (y <= self.height)  # NaN is outside
        at = np.where(inside, y - 0.5, 0), np.where(inside, x - 0.5, 0)
        planes = [
            map_coordinates(plane, at, order=1, mode="nearest")
            for plane in np.moveaxis(image, -1, 0)
        ]
        return np.stack(planes, axis=-1), None if inside.all() else inside

    def _colmap(self) -> "pycolmap.Camera":
        return pycolmap.Camera(
            camera_id=1, model=self.model, width=self.width, height=self.height,
            params=list(self.params),
        )  # fmt: skip

    def _ideal(self) -> "pycolmap.Camera":
        camera = self._colmap()
        return camera if _is_pinhole(camera) else pycolmap.undistort_camera(_OPTIONS, camera)


_OPTIONS = pycolmap.UndistortCameraOptions()


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
    """The folder with a dataset's model, `sparse/0` or `sparse`; None when there is neither.

    Raises UserError when a folder `sparse` is there, but no model in it.
    """
    sparse = root / "sparse"
    for folder in (sparse / "0", sparse):
        if all(_has(folder, name) for name in _FILES):
            return folder
    if not sparse.exists():
        return None
    files = sorted(path.relative_to(sparse).as_posix() for path in sparse.rglob("*"))[:6]
    raise UserError(
        sparse, f"no COLMAP model in it; it holds {', '.join(files) or 'nothing'}",
        expected="cameras, images and points3D, as .bin or .txt, in sparse/0 or sparse",
        fix="copy the model again, or remove the folder to have the poses estimated",
    )  # fmt: skip


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
    points = [model.points3D[key] for key in sorted(model.points3D)]
    return PosedModel(
        posed,
        unposed,
        np.array([point.xyz for point in points], np.float64).reshape(-1, 3),
        np.array([point.color for point in points], np.uint8).reshape(-1, 3),
    )


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
        lens.pinhole()
    except (ValueError, RuntimeError) as error:
        params = ", ".join(f"{value:g}" for value in camera.params)
        raise UserError(
            where, f"camera {camera.camera_id}, {camera.model_name} of {params}: no pinhole",
            expected="a camera that a pinhole camera can stand for, perspective or fisheye",
        ) from error  # fmt: skip
    return lens
