"""Matches of a capture that take no part in estimating its poses, and what they say of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_lenses import plane_points
from stages.scenes.poses.evidence import VerifiedTracks, hold_out, track_errors

_SCALE_PX = 4.0  # errors above it count less in their own point's place


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Tracks that were taken out of a database."""

    tracks: VerifiedTracks  # of all images, by name
    names: tuple[str, ...]

    def error_px(self, model: "pycolmap.Reconstruction") -> float | None:
        """Median reprojection error of the tracks at a model's poses; None with few of them.

        It is measured in pixels of pinholes, which are the lenses without their distortion; it is
        infinite for a track with a pixel that a lens does not reach.
        """
        ids = {image.name: image.image_id for image in model.images.values()}
        pixels = np.zeros_like(self.tracks.observed.pixel)
        for number, name in enumerate(self.names):
            own = self.tracks.observed.camera == number
            lens = model.cameras[model.images[ids[name]].camera_id]
            on_plane = plane_points(lens, self.tracks.observed.pixel[own])
            K = lens.calibration_matrix()
            pixels[own] = on_plane @ K[:2, :2].T + K[:2, 2]
        observed = replace(self.tracks.observed, pixel=pixels)
        cameras = pinholes(model)
        found = track_errors(
            {name: cameras[name] for name in self.names},
            replace(self.tracks, observed=observed),
            _SCALE_PX,
        )
        return None if found is None else found.median_px


def take_out(model: "pycolmap.Reconstruction", database: Path) -> HeldOut:
    """Take every tenth track of verified matches out of a database, whose images have poses."""
    names = {number: model.images[number].name for number in sorted(model.reg_image_ids())}
    with pycolmap.Database.open(database) as opened:
        ids, geometries = opened.read_two_view_geometries()
        keypoints = {
            name: opened.read_keypoints(number)[:, :2].astype(np.float64)
            for number, name in names.items()
        }
        verified, of = {}, {}
        for pair, geometry in zip(ids, geometries, strict=True):
            numbers = pycolmap.pair_id_to_image_pair(pair)
            if len(geometry.inlier_matches) and set(numbers) <= set(names):
                key = names[numbers[0]], names[numbers[1]]
                rows = np.asarray(geometry.inlier_matches, np.uint32).reshape(-1, 2)
                verified[key], of[key] = rows, (numbers, geometry)
        tracks, rest = hold_out(keypoints, verified)
        for key, rows in rest.items():
            numbers, geometry = of[key]
            geometry.inlier_matches = rows
            opened.delete_two_view_geometry(*numbers)
            opened.write_two_view_geometry(*numbers, geometry)
    return HeldOut(tracks, tuple(keypoints))


def pinholes(model: "pycolmap.Reconstruction") -> Mapping[str, Camera]:
    """Cameras of the images with a pose, by name, without their distortion."""
    found: dict[str, Camera] = {}
    for number in sorted(model.reg_image_ids()):
        image = model.images[number]
        lens, pose = model.cameras[image.camera_id], np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        K: Array = lens.calibration_matrix()
        found[image.name] = Camera(image.name, K, pose, lens.width, lens.height)
    return found
