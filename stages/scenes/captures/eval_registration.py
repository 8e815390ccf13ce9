"""Registration of an evaluation set to the world frame of a trained capture.

It follows from images that are in both, which are identified by the content of their files, never
by their names: frames of two videos, or of the two lenses of a rig, have equal names. Without
common images both models are assumed to share a frame, provided that the evaluation cameras look at
the capture's points and both point clouds lie on the same surfaces.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from scipy.spatial import cKDTree

from stages.run.errors import UserError
from stages.run.plurals import counted
from stages.scenes.cameras import Array, Camera, rotation_angle_deg
from stages.scenes.frames import Sim3, fit_sim3_from_cameras

# Largest difference of equal poses: share of the cameras' spread, and degrees.
_SAME_CENTRE, _SAME_ROTATION_DEG = 0.005, 0.5
# Largest residual of a similarity between equal scenes, in the same units.
_MAX_RESIDUAL, _MAX_ROTATION_DEG = 0.05, 2.0
# A camera that sees a smaller share of the capture's points looks elsewhere.
_MIN_VISIBLE_SHARE = 0.01
_MIN_POINTS = 30  # fewer do not sample a surface
# Largest median distance between the point clouds, in point spacings of the capture.
_MAX_SPACINGS = 5.0


@dataclass(frozen=True, eq=False)
class Placement:
    """The transform from an evaluation set to the capture, and how it was found."""

    train_from_eval: Sim3
    how: str
    shared_images: int
    residual: float  # share of the cameras' spread


def place(
    trained: Mapping[str, Camera],
    trained_sha256: Mapping[str, str],
    trained_points: Array,
    cameras: Mapping[str, Camera],
    sha256: Mapping[str, str],
    points: Array,
    frame: str,
    where: object,
) -> Placement:
    """Register an evaluation set (`cameras`, ...) to a trained capture (`trained`, ...).

    Args:
        trained: cameras of the capture by image name.
        trained_sha256: digests of its image files by name.
        trained_points: its points [P, 3].
        cameras: cameras of the evaluation set by image name.
        sha256: digests of its image files by name.
        points: its points [Q, 3].
        frame: `shared` assumes a shared frame without checks, `images` requires common images.
        where: the evaluation set, for messages.

    Raises UserError when common images contradict each other or, with `frame` images, are too few,
    and when without common images the frames cannot be shared.
    """
    if frame == "shared":
        return Placement(Sim3.identity(), "shared frame, as told", 0, 0.0)
    result = _from_common_images(trained, cameras, _by_content(trained_sha256, sha256))
    if isinstance(result, Placement):
        return result
    no_images = f"no image is in both{_same_names_note(trained, cameras)}"
    if result or frame == "images":
        raise _refused(where, result or no_images)
    mismatch = _mismatch(trained_points, cameras, points)
    if mismatch:
        raise _refused(where, f"{no_images}, and {mismatch}")
    return Placement(Sim3.identity(), "shared frame, by its points and cameras", 0, 0.0)


def nearest(trained: Sequence[Camera], cameras: Mapping[str, Camera], count: int) -> list[str]:
    """Names of the `count` cameras nearest to any trained one, by centre; 0 takes all."""
    if count == 0:
        return list(cameras)
    tree = cKDTree(np.stack([camera.centre for camera in trained]))
    distance = {name: tree.query(camera.centre)[0] for name, camera in cameras.items()}
    chosen = sorted(cameras, key=lambda name: (distance[name], name))[:count]
    return sorted(chosen)


def _by_content(trained: Mapping[str, str], sha256: Mapping[str, str]) -> list[tuple[str, str]]:
    """Both names of each common image; images that a set contains twice are left out."""
    trained_names, names = _unique(trained), _unique(sha256)
    return [(name, names[digest]) for digest, name in trained_names.items() if digest in names]


def _unique(sha256: Mapping[str, str]) -> dict[str, str]:
    """Names by digest, of the digests that occur once."""
    count = Counter(sha256.values())
    return {digest: name for name, digest in sha256.items() if count[digest] == 1}


def _same_names_note(trained: Iterable[str], cameras: Iterable[str]) -> str:
    """A note on equal file names, which do not count; empty if there are none."""
    files = [{PurePosixPath(name).name for name in names} for names in (trained, cameras)]
    count = len(files[0] & files[1])
    are = "is" if count == 1 else "are"
    return f" ({counted(count, 'file name')} {are}, with other content)" if count else ""


def _from_common_images(
    trained: Mapping[str, Camera], cameras: Mapping[str, Camera], pairs: list[tuple[str, str]]
) -> Placement | str:
    """Registration by common images, or why it is impossible; empty without common images."""
    if not pairs:
        return ""
    trained_cameras, eval_cameras = [trained[a] for a, _ in pairs], [cameras[b] for _, b in pairs]
    spread = _spread(list(trained.values()))
    both = list(zip(trained_cameras, eval_cameras, strict=True))
    offsets = [np.linalg.norm(a.centre - b.centre) for a, b in both]
    angles = [_angle_deg(a, b) for a, b in both]
    if max(offsets) <= _SAME_CENTRE * spread and max(angles) <= _SAME_ROTATION_DEG:
        how = f"shared frame: {len(pairs)} images stand equal in both"
        residual_share = max(offsets) / spread if spread > 0 else 0.0
        return Placement(Sim3.identity(), how, len(pairs), residual_share)
    if len(pairs) < 2 or _spread(trained_cameras) <= 1e-9 * spread:
        return f"{len(pairs)} common image has another pose; a similarity needs two"
    fitted, residual = fit_sim3_from_cameras(eval_cameras, trained_cameras)
    residual_share, angle = residual["centre_rmse_relative"], residual["rotation_mean_deg"]
    if fitted.scale <= 0 or residual_share > _MAX_RESIDUAL or angle > _MAX_ROTATION_DEG:
        return (
            f"{len(pairs)} common images contradict each other: a similarity leaves "
            f"{residual_share:.1%} of the cameras' spread and {angle:.1f} degrees"
        )
    how = f"similarity from {len(pairs)} images in both"
    return Placement(fitted, how, len(pairs), residual_share)


def _mismatch(trained_points: Array, cameras: Mapping[str, Camera], points: Array) -> str:
    """Why the frames cannot be shared; empty if they can."""
    if len(trained_points) < _MIN_POINTS:
        return ""
    visible = {name: _visible_share(camera, trained_points) for name, camera in cameras.items()}
    blind = sorted(name for name, share in visible.items() if share < _MIN_VISIBLE_SHARE)
    if 2 * len(blind) > len(visible):
        return f"{len(blind)} of {len(visible)} cameras see none of the capture's points"
    if len(points) < _MIN_POINTS:
        return ""
    tree = cKDTree(trained_points)
    spacing = float(np.median(tree.query(trained_points, k=2)[0][:, 1]))
    distance = float(np.median(tree.query(points)[0]))
    if distance > _MAX_SPACINGS * spacing:
        return f"its points lie {distance / spacing:.0f} spacings away from the capture's"
    return ""


def _visible_share(camera: Camera, points: Array) -> float:
    pixels, depth = camera.project(points)
    x, y = pixels.T
    inside = (depth > 0) & (x >= 0) & (y >= 0) & (x <= camera.width) & (y <= camera.height)
    return float(inside.mean())


def _spread(cameras: Sequence[Camera]) -> float:
    centres = np.stack([camera.centre for camera in cameras])
    return float(np.linalg.norm(centres - centres.mean(0), axis=1).max())


def _angle_deg(a: Camera, b: Camera) -> float:
    return rotation_angle_deg(a.cam_from_world[:3, :3], b.cam_from_world[:3, :3])


def _refused(where: object, why: str) -> UserError:
    return UserError(
        where,
        f"not in the frame of the capture: {why}",
        expected="a model in the frame of the capture, or at least two of its images",
        fix="register both sets together, or set capture_evaluate.frame=shared if they share it",
    )
