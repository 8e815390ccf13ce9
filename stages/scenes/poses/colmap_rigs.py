"""COLMAP models whose images share lenses and rigs, and their adjustment.

`colmap.py` knows one camera an image. Here a `Slot` says which lens took an image, on which rig
the lens is mounted, and which images were taken at one time, so that intrinsics are estimated once
a lens and a rig keeps its shape.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import adjustment, open_model, points_of

pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value

Observation = tuple[str, Array]  # image name, pixel [2]


@dataclass(frozen=True)
class Slot:
    """Where an image belongs. The first lens of a rig, by image order, is its reference."""

    lens: str
    rig: str
    frame: str
    mounted: bool = False  # the lens's place on its rig is held in an adjustment
    known_focal: bool = False  # the given focal length is a measurement, not a guess
    held_focal: bool = False  # the focal length is not refined
    bent: bool = False  # the mapper estimates a radial distortion; all else takes pinholes


@dataclass(frozen=True, eq=False)
class Structure:
    """Points with their observations and colours."""

    points: Array  # [P, 3]
    tracks: list[list[Observation]]
    colors: NDArray[np.uint8]  # [P, 3]

    @staticmethod
    def empty() -> "Structure":
        """No point at all."""
        return Structure(np.zeros((0, 3)), [], np.zeros((0, 3), np.uint8))

    def visible_in(self, names: Sequence[str]) -> "Structure":
        """The points that some of these images see, with the observations in these alone."""
        wanted = set(names)
        tracks = [[one for one in track if one[0] in wanted] for track in self.tracks]
        kept = [number for number, track in enumerate(tracks) if track]
        return Structure(self.points[kept], [tracks[k] for k in kept], self.colors[kept])


def adjust_rigs(
    cameras: Mapping[str, Camera], slots: Mapping[str, Slot], structure: Structure
) -> tuple[dict[str, Camera], Array, float]:
    """Bundle adjustment of frames, points, focal lengths and the rigs' shapes.

    Returns cameras by image, points [P, 3] and the mean reprojection error, px. Lenses that are
    `mounted` keep their place on their rig; two cameras hold the world.
    """
    plan = _Plan.of(cameras, slots)
    model = _model(plan, structure)
    options, config = adjustment(model, refine_focal=True, iterations=60)
    options.refine_sensor_from_rig = True
    for name in cameras:
        slot, number = slots[name], plan.lenses[slots[name].lens]
        if slot.mounted and slot.lens != plan.references[slot.rig]:
            config.set_constant_sensor_from_rig_pose(sensor_of(number))
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
    model = _model(_Plan.of(cameras, slots), structure)
    model.update_point_3d_errors()
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def read_rig_model(folder: Path) -> tuple[dict[str, Camera], Structure]:
    """Posed cameras by image name, and the points with their tracks.

    Raises UserError when it is missing or its cameras are no pinholes.
    """
    model = open_model(folder)
    lenses = {camera.model_name for camera in model.cameras.values()}
    if not lenses <= {"PINHOLE", "SIMPLE_PINHOLE"}:
        raise UserError(folder, f"cameras {sorted(lenses)}", expected="undistorted images")
    points = [model.points3D[key] for key in sorted(model.points3D)]
    tracks = [
        [
            (model.images[e.image_id].name, model.images[e.image_id].points2D[e.point2D_idx].xy)
            for e in point.track.elements
        ]
        for point in points
    ]
    xyz, colors = points_of(model, folder)
    return posed_cameras(model), Structure(xyz, tracks, colors)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Numbers of everything in a model, and the shape of its rigs."""

    cameras: Mapping[str, Camera]
    slots: Mapping[str, Slot]
    images: dict[str, int]
    lenses: dict[str, int]
    rigs: dict[str, int]
    frames: dict[tuple[str, str], int]  # by (rig, frame)
    references: dict[str, str]  # lens by rig
    cam_from_rig: dict[str, Array]  # by lens

    @classmethod
    def of(cls, cameras: Mapping[str, Camera], slots: Mapping[str, Slot]) -> "_Plan":
        """Rigs are shaped as the cameras stand in the first frame that shows two lenses."""
        taken = [slots[name] for name in cameras]
        references: dict[str, str] = {}
        for slot in taken:
            references.setdefault(slot.rig, slot.lens)
        placed = {lens: np.eye(4) for lens in references.values()}
        for name, camera in cameras.items():
            slot = slots[name]
            for other, reference in cameras.items():
                same = (slots[other].rig, slots[other].frame) == (slot.rig, slot.frame)
                if same and slots[other].lens == references[slot.rig] and slot.lens not in placed:
                    placed[slot.lens] = camera.cam_from_world @ reference.world_from_cam
        lost = sorted({slot.lens for slot in taken} - set(placed))
        assert not lost, f"{lost} share no frame with the reference of their rig"
        return cls(
            cameras, slots, numbers_of(cameras), numbers_of(slot.lens for slot in taken),
            numbers_of(slot.rig for slot in taken),
            numbers_of((slot.rig, slot.frame) for slot in taken), references, placed,
        )  # fmt: skip


def _model(plan: _Plan, structure: Structure) -> "pycolmap.Reconstruction":
    model = pycolmap.Reconstruction()
    for lens, number in plan.lenses.items():
        name = next(name for name in plan.cameras if plan.slots[name].lens == lens)
        model.add_camera(lens_of(plan.cameras[name], number, known_focal=True))
    for rig, number in plan.rigs.items():
        model.add_rig(_rig(plan, rig, number))
    for key, number in plan.frames.items():
        model.add_frame(_frame(plan, key, number))
    seen, elements = _observations(plan, structure)
    for name, number in plan.images.items():
        slot = plan.slots[name]
        image = pycolmap.Image(name=name, camera_id=plan.lenses[slot.lens], image_id=number)
        image.frame_id = plan.frames[slot.rig, slot.frame]
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(pixel) for pixel in seen[name]])
        model.add_image(image)
    for number in plan.frames.values():
        model.register_frame(number)
    for xyz, track, color in zip(structure.points, elements, structure.colors, strict=True):
        model.add_point3D(xyz, pycolmap.Track(track), color)
    return model


def _rig(plan: _Plan, rig: str, number: int) -> "pycolmap.Rig":
    made = pycolmap.Rig(rig_id=number)
    made.add_ref_sensor(sensor_of(plan.lenses[plan.references[rig]]))
    members = dict.fromkeys(s.lens for s in map(plan.slots.get, plan.cameras) if s.rig == rig)
    for lens in members:
        if lens != plan.references[rig]:
            pose = pycolmap.Rigid3d(plan.cam_from_rig[lens][:3])
            made.add_sensor(sensor_of(plan.lenses[lens]), pose)
    return made


def _frame(plan: _Plan, key: tuple[str, str], number: int) -> "pycolmap.Frame":
    names = [n for n in plan.cameras if (plan.slots[n].rig, plan.slots[n].frame) == key]
    made = pycolmap.Frame(frame_id=number, rig_id=plan.rigs[key[0]])
    for name in names:
        sensor = sensor_of(plan.lenses[plan.slots[name].lens])
        made.add_data_id(pycolmap.data_t(sensor, plan.images[name]))
    rig_from_cam = np.linalg.inv(plan.cam_from_rig[plan.slots[names[0]].lens])
    made.rig_from_world = pycolmap.Rigid3d(
        (rig_from_cam @ plan.cameras[names[0]].cam_from_world)[:3]
    )
    return made


def _observations(
    plan: _Plan, structure: Structure
) -> tuple[dict[str, list[Array]], list[list["pycolmap.TrackElement"]]]:
    """Pixels of each image, and each track as places in them."""
    seen: dict[str, list[Array]] = {name: [] for name in plan.cameras}
    elements = []
    for track in structure.tracks:
        elements.append([])
        for name, pixel in track:
            elements[-1].append(pycolmap.TrackElement(plan.images[name], len(seen[name])))
            seen[name].append(pixel)
    return seen, elements


def numbers_of(keys: Iterable[Any]) -> dict[Any, int]:
    """Numbers from 1 for keys, in the order in which they first come."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}


def sensor_of(number: int) -> "pycolmap.sensor_t":
    """COLMAP's sensor of a lens."""
    return pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number)


def lens_of(camera: Camera, number: int, known_focal: bool) -> "pycolmap.Camera":
    """One focal length where both are the same, so that an adjustment keeps them so."""
    (fx, _, cx), (_, fy, cy), _ = camera.K
    model, params = ("PINHOLE", [fx, fy, cx, cy])
    if abs(fx - fy) < 1e-9 * fx:
        model, params = ("SIMPLE_PINHOLE", [fx, cx, cy])
    made = pycolmap.Camera(
        camera_id=number, model=model, width=camera.width, height=camera.height, params=params
    )
    made.has_prior_focal_length = known_focal
    return made


def posed_cameras(model: "pycolmap.Reconstruction") -> dict[str, Camera]:
    """Posed cameras by image name, in the order of image ids."""
    found = {}
    for image in sorted(model.images.values(), key=lambda image: image.image_id):
        if image.has_pose:
            lens, pose = model.cameras[image.camera_id], np.eye(4)
            pose[:3] = image.cam_from_world().matrix()
            K = lens.calibration_matrix()
            found[image.name] = Camera(image.name, K, pose, lens.width, lens.height)
    return found
