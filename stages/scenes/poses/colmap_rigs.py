"""COLMAP models whose images share lenses and rigs, and their bundle adjustment.

In `colmap.py` every image has its own camera. Here a `Slot` says which lens took an image, on which
rig the lens is mounted, and which images were taken at one time, so that intrinsics are estimated
once per lens and rigs are rigid.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import bundle_adjustment, open_model, points_and_colors
from stages.scenes.colmap_import import pycolmap


@dataclass(frozen=True)
class Slot:
    """Lens, rig and frame of an image; the first lens of a rig in image order is its reference."""

    lens: str
    rig: str
    frame: str
    mounted: bool = False  # its pose on the rig is fixed in an adjustment
    known_focal: bool = False  # the focal length is measured, not guessed
    held_focal: bool = False  # the focal length is fixed in an adjustment
    distorted: bool = False  # the mapper estimates radial distortion; elsewhere a pinhole


@dataclass(frozen=True, eq=False)
class Structure:
    """Coloured points, and the pixels that show them, in the order of the points."""

    points: Array  # [P, 3]
    colors: NDArray[np.uint8]  # [P, 3]
    images: tuple[str, ...]
    point: NDArray[np.int64]  # [O], index into `points`
    image: NDArray[np.int64]  # [O], index into `images`
    pixel: Array  # [O, 2]

    def visible_in(self, names: Collection[str]) -> "Structure":
        """The points that are visible in these images, with their observations in these only."""
        kept = [number for number, name in enumerate(self.images) if name in names]
        own = np.isin(self.image, kept)
        visible, point = np.unique(self.point[own], return_inverse=True)
        return Structure(
            self.points[visible],
            self.colors[visible],
            tuple(self.images[number] for number in kept),
            point,
            np.searchsorted(kept, self.image[own]),
            self.pixel[own],
        )

    def with_copies(self, copies: Mapping[str, str]) -> "Structure":
        """Add images by name, each with the pixels of another one."""
        point, image, pixel = [self.point], [self.image], [self.pixel]
        for number, original in enumerate(copies.values(), start=len(self.images)):
            own = self.image == self.images.index(original)
            point.append(self.point[own])
            image.append(np.full(len(point[-1]), number))
            pixel.append(self.pixel[own])
        order = np.argsort(np.concatenate(point), kind="stable")
        return Structure(
            self.points,
            self.colors,
            (*self.images, *copies),
            np.concatenate(point)[order],
            np.concatenate(image)[order],
            np.concatenate(pixel)[order],
        )


def adjust_rigs(
    cameras: Mapping[str, Camera], slots: Mapping[str, Slot], structure: Structure
) -> tuple[dict[str, Camera], Array, float]:
    """Bundle adjustment of frames, points, focal lengths and the rigs' shapes.

    Returns cameras by image, points [P, 3] and the mean reprojection error, px. Poses of `mounted`
    lenses on their rig are fixed; two cameras fix the gauge.
    """
    ids = _ModelIds.of(cameras, slots)
    model = _model(ids, structure)
    options, config = bundle_adjustment(model, refine_focal=True, iterations=60)
    options.refine_sensor_from_rig = True
    for name in cameras:
        slot, number = slots[name], ids.lenses[slots[name].lens]
        if slot.mounted and slot.lens != ids.references[slot.rig]:
            config.set_constant_sensor_from_rig_pose(sensor_id(number))
        if slot.held_focal:
            config.set_constant_cam_intrinsics(number)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()
    points = np.array([model.points3D[key].xyz for key in sorted(model.points3D)]).reshape(-1, 3)
    return posed_cameras(model), points, float(model.compute_mean_reprojection_error())


def write_rig_model(
    folder: Path, cameras: Mapping[str, Camera], slots: Mapping[str, Slot], structure: Structure
) -> None:
    """Write a binary COLMAP model with rigs, frames and tracks."""
    model = _model(_ModelIds.of(cameras, slots), structure)
    model.update_point_3d_errors()
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def read_rig_model(folder: Path) -> tuple[dict[str, Camera], Structure]:
    """Posed cameras by image name, and the points with their tracks.

    Raises UserError when it is missing or has cameras with distortion.
    """
    model = open_model(folder)
    lenses = {camera.model_name for camera in model.cameras.values()}
    if not lenses <= {"PINHOLE", "SIMPLE_PINHOLE"}:
        raise UserError(folder, f"cameras {sorted(lenses)}", expected="undistorted images")
    xyz, colors = points_and_colors(model, folder)
    images = {number: index for index, number in enumerate(sorted(model.images))}
    pixels = {number: [p.xy for p in image.points2D] for number, image in model.images.items()}
    elements = [
        (point, images[element.image_id], pixels[element.image_id][element.point2D_idx])
        for point, key in enumerate(sorted(model.points3D))
        for element in model.points3D[key].track.elements
    ]
    structure = Structure(
        xyz,
        colors,
        tuple(model.images[number].name for number in images),
        np.array([point for point, _, _ in elements], np.int64),
        np.array([image for _, image, _ in elements], np.int64),
        np.array([pixel for _, _, pixel in elements]).reshape(-1, 2),
    )
    return posed_cameras(model), structure


@dataclass(frozen=True, eq=False)
class _ModelIds:
    """Ids of everything in a model, and the poses of lenses on their rigs."""

    cameras: Mapping[str, Camera]
    slots: Mapping[str, Slot]
    images: dict[str, int]
    lenses: dict[str, int]
    rigs: dict[str, int]
    frames: dict[tuple[str, str], int]  # by (rig, frame)
    references: dict[str, str]  # lens by rig
    cam_from_rig: dict[str, Array]  # by lens

    @classmethod
    def of(cls, cameras: Mapping[str, Camera], slots: Mapping[str, Slot]) -> "_ModelIds":
        """Poses on a rig follow from the first frame that has a lens and its reference."""
        used_slots = [slots[name] for name in cameras]
        references: dict[str, str] = {}
        for slot in used_slots:
            references.setdefault(slot.rig, slot.lens)
        cam_from_rig = {lens: np.eye(4) for lens in references.values()}
        for name, camera in cameras.items():
            slot = slots[name]
            for other, reference in cameras.items():
                same = (slots[other].rig, slots[other].frame) == (slot.rig, slot.frame)
                is_reference = same and slots[other].lens == references[slot.rig]
                if is_reference and slot.lens not in cam_from_rig:
                    cam_from_rig[slot.lens] = camera.cam_from_world @ reference.world_from_cam
        unconnected = sorted({slot.lens for slot in used_slots} - set(cam_from_rig))
        assert not unconnected, f"{unconnected} share no frame with the reference of their rig"
        return cls(
            cameras,
            slots,
            ids_of(cameras),
            ids_of(slot.lens for slot in used_slots),
            ids_of(slot.rig for slot in used_slots),
            ids_of((slot.rig, slot.frame) for slot in used_slots),
            references,
            cam_from_rig,
        )


def _model(ids: _ModelIds, structure: Structure) -> "pycolmap.Reconstruction":
    model = pycolmap.Reconstruction()
    for lens, number in ids.lenses.items():
        name = next(name for name in ids.cameras if ids.slots[name].lens == lens)
        model.add_camera(lens_of(ids.cameras[name], number, known_focal=True))
    for rig, number in ids.rigs.items():
        model.add_rig(_rig(ids, rig, number))
    for key, number in ids.frames.items():
        model.add_frame(_frame(ids, key, number))
    row = np.zeros(len(structure.point), np.int64)  # of each observation among its image's
    image_ids = np.array([ids.images[n] for n in structure.images], np.int64)[structure.image]
    for name, number in ids.images.items():
        slot, own = ids.slots[name], image_ids == number
        row[own] = np.arange(np.count_nonzero(own))
        lens, pixels = ids.lenses[slot.lens], structure.pixel[own]
        image = pycolmap.Image(name, pixels, camera_id=lens, image_id=number)
        image.frame_id = ids.frames[slot.rig, slot.frame]
        model.add_image(image)
    for number in ids.frames.values():
        model.register_frame(number)
    elements = list(map(pycolmap.TrackElement, image_ids.tolist(), row.tolist()))
    ends = np.searchsorted(structure.point, np.arange(len(structure.points) + 1)).tolist()
    for number, (xyz, color) in enumerate(zip(structure.points, structure.colors, strict=True)):
        track = pycolmap.Track(elements[ends[number] : ends[number + 1]])
        model.add_point3D(xyz, track, color)
    return model


def _rig(ids: _ModelIds, rig: str, number: int) -> "pycolmap.Rig":
    colmap_rig = pycolmap.Rig(rig_id=number)
    colmap_rig.add_ref_sensor(sensor_id(ids.lenses[ids.references[rig]]))
    members = dict.fromkeys(s.lens for s in map(ids.slots.get, ids.cameras) if s.rig == rig)
    for lens in members:
        if lens != ids.references[rig]:
            pose = pycolmap.Rigid3d(ids.cam_from_rig[lens][:3])
            colmap_rig.add_sensor(sensor_id(ids.lenses[lens]), pose)
    return colmap_rig


def _frame(ids: _ModelIds, key: tuple[str, str], number: int) -> "pycolmap.Frame":
    names = [n for n in ids.cameras if (ids.slots[n].rig, ids.slots[n].frame) == key]
    colmap_frame = pycolmap.Frame(frame_id=number, rig_id=ids.rigs[key[0]])
    for name in names:
        sensor = sensor_id(ids.lenses[ids.slots[name].lens])
        colmap_frame.add_data_id(pycolmap.data_t(sensor, ids.images[name]))
    rig_from_cam = np.linalg.inv(ids.cam_from_rig[ids.slots[names[0]].lens])
    colmap_frame.rig_from_world = pycolmap.Rigid3d(
        (rig_from_cam @ ids.cameras[names[0]].cam_from_world)[:3]
    )
    return colmap_frame


def ids_of(keys: Iterable[Any]) -> dict[Any, int]:
    """Ids from 1 for keys, in the order of their first occurrence."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}


def sensor_id(number: int) -> "pycolmap.sensor_t":
    """COLMAP's sensor id of a lens."""
    return pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number)


def lens_of(camera: Camera, number: int, known_focal: bool) -> "pycolmap.Camera":
    """COLMAP's camera; with one focal length if both are equal, so that they stay equal."""
    (fx, _, cx), (_, fy, cy), _ = camera.K
    model, params = ("PINHOLE", [fx, fy, cx, cy])
    if abs(fx - fy) < 1e-9 * fx:
        model, params = ("SIMPLE_PINHOLE", [fx, cx, cy])
    lens = pycolmap.Camera(
        camera_id=number, model=model, width=camera.width, height=camera.height, params=params
    )
    lens.has_prior_focal_length = known_focal
    return lens


def posed_cameras(model: "pycolmap.Reconstruction") -> dict[str, Camera]:
    """Posed cameras by image name, in the order of image ids."""
    cameras = {}
    for image in sorted(model.images.values(), key=lambda image: image.image_id):
        if image.has_pose:
            lens, pose = model.cameras[image.camera_id], np.eye(4)
            pose[:3] = image.cam_from_world().matrix()
            K = lens.calibration_matrix()
            cameras[image.name] = Camera(image.name, K, pose, lens.width, lens.height)
    return cameras
