"""Colour of training cameras: an affine map [3, 4] of a render's RGB per camera, learnt beside it.

Images determine colours only up to a map that all cameras share, so the mean over the cameras is
the identity. A camera that was not trained on gets the mean of the maps of the two nearest places
of training cameras, weighted by inverse distance. Of several cameras at one place, as of a
panorama, it gets those of the two nearest viewing directions, likewise; where these are equal too,
as of a bracket of exposures, their mean. A training camera, which has its place and name, has its
own map.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import Sim3

NEIGHBOURS = 2
_SAME = 1e-6  # place or direction, of the distance to the farthest one

# What a file of Gaussians keeps: `centres` [V, 3] and unit `directions` [V, 3] of optical axes in
# the world frame, `names` [V] and `maps` [V, 3, 4]. Older files have no directions and names.
ColorTable = dict[str, Any]


def identity(count: int, device: str) -> Tensor:
    """Maps [count, 3, 4] that change nothing."""
    return torch.eye(3, 4, device=device).repeat(count, 1, 1)


def balanced(offsets: Tensor) -> Tensor:
    """Offsets [V, 3, 4] of maps from the identity, without what all cameras share."""
    return offsets - offsets.mean(0)


def distance(offsets: Tensor) -> Tensor:
    """Mean square [] of balanced offsets [V, 3, 4], which training keeps small."""
    return balanced(offsets).square().mean()


def applied(image: Tensor, color_map: Tensor) -> Tensor:
    """An image [H, W, 3] through a map [3, 4].

    >>> bool((applied(torch.ones(2, 2, 3), 2 * identity(1, "cpu")[0]) == 2).all())
    True
    """
    return image @ color_map[:, :3].T + color_map[:, 3]


def table(cameras: Sequence[Camera], maps: Tensor) -> ColorTable:
    """The table of cameras of the world frame and their maps [V, 3, 4]."""
    return {
        "centres": [camera.centre.tolist() for camera in cameras],
        "directions": [_direction(camera).tolist() for camera in cameras],
        "names": [camera.name for camera in cameras],
        "maps": maps.detach().double().cpu().tolist(),
    }


def check(colors: ColorTable) -> None:
    """Raise ValueError for what is no table."""
    centres, maps = np.array(colors["centres"], float), np.array(colors["maps"], float)
    count = len(maps)
    if count == 0 or maps.shape != (count, 3, 4) or centres.shape != (count, 3):
        raise ValueError(f"colours of shapes {centres.shape} and {maps.shape}")
    directions, names = _directions(colors, count), _names(colors, count)
    if directions.shape != (count, 3) or len(names) != count:
        raise ValueError(f"{len(directions)} directions and {len(names)} names of {count} colours")
    if not all(np.isfinite(array).all() for array in (centres, maps, directions)):
        raise ValueError("colours that are not finite")


def moved(colors: ColorTable, frame: Sim3) -> ColorTable:
    """The table of the same cameras when their world frame is moved."""
    found = {**colors, "centres": frame.apply(np.array(colors["centres"], float)).tolist()}
    if "directions" in colors:
        turned = np.array(colors["directions"], float) @ frame.rotation.T
        found["directions"] = turned.tolist()
    return found


def map_at(colors: ColorTable, camera: Camera) -> Array:
    """The map [3, 4] of a camera of the world frame."""
    maps = np.array(colors["maps"], float)
    directions, names = _directions(colors, len(maps)), _names(colors, len(maps))

    def at_place(place: Array, *, is_there: bool) -> Array:
        own = [index for index in place if is_there and names[index] == camera.name]
        if own:
            return maps[own].mean(0)
        sides, weights, _ = _nearest(directions[place], _direction(camera))
        return np.tensordot(weights, [maps[place[side]].mean(0) for side in sides], 1)

    places, weights, is_there = _nearest(np.array(colors["centres"], float), camera.centre)
    return np.tensordot(weights, [at_place(place, is_there=is_there) for place in places], 1)


def map_of(colors: ColorTable, camera: Camera) -> Array:
    """The map [3, 4] of a camera that was trained on, if by another pose: found by its name."""
    own = [index for index, name in enumerate(colors.get("names", [])) if name == camera.name]
    return np.array(colors["maps"], float)[own].mean(0) if own else map_at(colors, camera)


def _nearest(points: Array, at: Array) -> tuple[list[Array], Array, bool]:
    """The distinct points of [V, 3] nearest to one [3]: their indices, weights, if it is there.

    There are NEIGHBOURS of them, or one if it is there or no other exists.
    """
    distances = np.linalg.norm(points - at, axis=1)
    same = _SAME * max(float(distances.max()), 1e-12)
    groups, near = [], []
    left = np.argsort(distances, kind="stable")
    while len(left) and len(groups) < NEIGHBOURS:
        is_here = np.linalg.norm(points[left] - points[left[0]], axis=1) <= same
        groups.append(left[is_here])
        near.append(distances[left[0]])
        left = left[~is_here]
        if near[0] <= same:
            return groups, np.ones(1), True
    weights = 1 / np.array(near)
    return groups, weights / weights.sum(), False


def _direction(camera: Camera) -> Array:
    """The unit vector [3] along the optical axis, in the world frame."""
    return camera.cam_from_world[2, :3]


def _directions(colors: ColorTable, count: int) -> Array:
    return np.array(colors.get("directions", [[0, 0, 1]] * count), float)


def _names(colors: ColorTable, count: int) -> list[str | None]:
    return list(colors.get("names", [None] * count))
