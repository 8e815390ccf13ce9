"""Where an evaluation set stands in the world frame of a trained capture.

Photographs that are in both decide it. They are found by the bytes of their files and never by
their names: the frames of two videos, and the two eyes of a rig, have equal ones. Without any, both
models are taken to share one frame, if the evaluation cameras then look at the capture's points and
both point clouds lie on the same surfaces.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from scipy.spatial import cKDTree

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera, rotation_angle_deg
from stages.scenes.frames import Sim3, fit_sim3_from_cameras

# Poses of one photograph that differ by less are the same: of the cameras' spread, and degrees.
_SAME_PLACE, _SAME_TURN_DEG = 0.005, 0.5
# A similarity that leaves more of the spread, or turns cameras by more, joins different scenes.
_MOST_RESIDUAL, _MOST_TURN_DEG = 0.05, 2.0
# A camera that shows a smaller share of the capture's points looks elsewhere.
_LEAST_SEEN = 0.01
_FEW_POINTS = 30  # fewer show no surface
# Distance of the sets' points to the capture's, in distances between the latter.
_MOST_SPACINGS = 5.0


@dataclass(frozen=True, eq=False)
class Placement:
    """How the frame of an evaluation set lies in that of the capture."""

    train_from_eval: Sim3
    how: str
    shared_images: int
    residual: float  # share of the cameras' spread


def place(
    trained: Mapping[str, Camera],
    trained_sha256: Mapping[str, str],
    trained_points: Array,  # [P, 3]
    cameras: Mapping[str, Camera],
    sha256: Mapping[str, str],
    points: Array,  # [Q, 3]
    frame: str,
    where: object,
) -> Placement:
    """Find the frame of an evaluation set; `frame` shared skips the search and all doubt.

    Raises UserError when the shared photographs contradict each other, when `frame` is images and
    they do not suffice, and when without them the frames cannot be one.
    """
    if frame == "shared":
        return Placement(Sim3.identity(), "shared frame, as told", 0, 0.0)
    found = _from_pairs(trained, cameras, _by_content(trained_sha256, sha256))
    if isinstance(found, Placement):
        return found
    alone = f"no photograph is in both{_alike(trained, cameras)}"
    if found or frame == "images":
        raise _refused(where, found or alone)
    doubt = _doubt(trained_points, cameras, points)
    if doubt:
        raise _refused(where, f"{alone}, and {doubt}")
    return Placement(Sim3.identity(), "shared frame, by its points and cameras", 0, 0.0)


def nearest(trained: Sequence[Camera], cameras: Mapping[str, Camera], count: int) -> list[str]:
    """Names of the `count` cameras nearest to any trained one, by centre; 0 takes all."""
    if count == 0:
        return list(cameras)
    tree = cKDTree(np.stack([camera.centre for camera in trained]))
    distance = {name: tree.query(camera.centre)[0] for name, camera in cameras.items()}
    chosen = sorted(cameras, key=lambda name: (distance[name], name))[:count]
    return sorted(chosen)


def _by_content(trained: Mapping[str, str], given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names of each photograph in both; one that a set has twice ties no two poses together."""
    ours, theirs = _once(trained), _once(given)
    return [(name, theirs[digest]) for digest, name in ours.items() if digest in theirs]


def _once(sha256: Mapping[str, str]) -> dict[str, str]:
    """Names by digest, of the digests that occur once."""
    count = Counter(sha256.values())
    return {digest: name for name, digest in sha256.items() if count[digest] == 1}


def _alike(trained: Iterable[str], given: Iterable[str]) -> str:
    """What to tell of equal file names, which tie nothing; empty where there are none."""
    files = [{PurePosixPath(name).name for name in names} for names in (trained, given)]
    count = len(files[0] & files[1])
    return f" ({count} file names are, of other content)" if count else ""


def _from_pairs(
    trained: Mapping[str, Camera], given: Mapping[str, Camera], pairs: list[tuple[str, str]]
) -> Placement | str:
    """The frame that photographs in both give, or why they give none; empty without any."""
    if not pairs:
        return ""
    ours, theirs = [trained[a] for a, _ in pairs], [given[b] for _, b in pairs]
    spread = _spread(list(trained.values()))
    offsets = [np.linalg.norm(a.centre - b.centre) for a, b in zip(ours, theirs, strict=True)]
    turns = [_turn_deg(a, b) for a, b in zip(ours, theirs, strict=True)]
    if max(offsets) <= _SAME_PLACE * spread and max(turns) <= _SAME_TURN_DEG:
        how = f"shared frame: {len(pairs)} images stand equal in both"
        left = max(offsets) / spread if spread > 0 else 0.0
        return Placement(Sim3.identity(), how, len(pairs), left)
    if len(pairs) < 2 or _spread(ours) <= 1e-9 * spread:
        return f"{len(pairs)} photograph in both has another pose; two fix a similarity"
    fitted, residual = fit_sim3_from_cameras(theirs, ours)
    left, turn = residual["centre_rmse_relative"], residual["rotation_mean_deg"]
    if fitted.scale <= 0 or left > _MOST_RESIDUAL or turn > _MOST_TURN_DEG:
        return (
            f"{len(pairs)} photographs in both contradict each other: a similarity leaves "
            f"{left:.1%} of the cameras' spread and {turn:.1f} degrees"
        )
    return Placement(fitted, f"similarity from {len(pairs)} images in both", len(pairs), left)


def _doubt(trained_points: Array, cameras: Mapping[str, Camera], points: Array) -> str:
    """Why the frames cannot be one; empty when they can."""
    if len(trained_points) < _FEW_POINTS:
        return ""
    seen = {name: _share_seen(camera, trained_points) for name, camera in cameras.items()}
    blind = sorted(name for name, share in seen.items() if share < _LEAST_SEEN)
    if 2 * len(blind) > len(seen):
        return f"{len(blind)} of {len(seen)} cameras see none of the capture's points"
    if len(points) < _FEW_POINTS:
        return ""
    tree = cKDTree(trained_points)
    spacing = float(np.median(tree.query(trained_points, k=2)[0][:, 1]))
    distance = float(np.median(tree.query(points)[0]))
    if distance > _MOST_SPACINGS * spacing:
        return f"its points lie {distance / spacing:.0f} spacings away from the capture's"
    return ""


def _share_seen(camera: Camera, points: Array) -> float:
    pixels, depth = camera.project(points)
    x, y = pixels.T
    inside = (depth > 0) & (x >= 0) & (y >= 0) & (x <= camera.width) & (y <= camera.height)
    return float(inside.mean())


def _spread(cameras: Sequence[Camera]) -> float:
    centres = np.stack([camera.centre for camera in cameras])
    return float(np.linalg.norm(centres - centres.mean(0), axis=1).max())


def _turn_deg(a: Camera, b: Camera) -> float:
    return rotation_angle_deg(a.cam_from_world[:3, :3], b.cam_from_world[:3, :3])


def _refused(where: object, why: str) -> UserError:
    return UserError(
        where, f"not in the frame of the capture: {why}",
        expected="a model of the capture's own frame, or two or more of its photographs",
        fix="register both sets together, or set capture_evaluate.frame=shared if the frame is one",
    )  # fmt: skip
