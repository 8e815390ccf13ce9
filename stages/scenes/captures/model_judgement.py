"""Whether the model of a capture is right, judged without the true poses.

Three tests, of which each sees what the others cannot. Matches that a pair of images verified by
a geometry of its own lie near the epipolar lines of right poses. And two cameras that look at a
surface from nearly the same direction observe mostly the same of its points: where an object has
two similar sides, or a texture repeats, a wrong model lays cameras beside each other that have
little in common. A camera that only turns shows no depth: rotations alone explain its matches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.run.plurals import counted
from stages.scenes.cameras import Array
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_lenses import plane_points

# Verified matches that make a pair count, their largest error, and the least share that agrees.
_MIN_VERIFIED, _VERIFIED_PX, LEAST_AGREEMENT = 40, 4.0, 0.7
# Points that an image has to observe: the inliers that COLMAP asks of a new pose.
_MIN_POINTS = 30
# Cameras are beside each other when their rays to common surfaces differ by less. Measured on rings
# and on photographs: right models have there 59 % of points in common, or more; wrong ones 10-35 %.
_BESIDE_DEG, _LEAST_COMMON, _MIN_VISIBLE = 12.0, 0.4, 20
_TRACK = 3  # images of a point that counts: two agree by chance
_MOST_BESIDE = 12  # cameras beside one that are looked at
_MOST_CONTRADICTED = 0.1  # share of the images, above one; more, and the model is wrong
# Where a rotation brings this share of the verified matches together, up to this error, the camera
# turned on the spot; whatever the focal length, since a model of such images has invented it too.
_TURNED_SHARE, _TURNED_PX = 0.9, 2.0
_FOCAL_SCALES = np.geomspace(0.5, 2.0, 33)
_TURNED_PAIRS, _TURNED_MATCHES = 60, 200  # that are looked at


@dataclass(frozen=True)
class VerifiedPair:
    """How many verified matches of two images lie near the epipolar lines of a model's poses."""

    images: tuple[int, int]
    total: int
    near: int


@dataclass(frozen=True)
class Neighbours:
    """Two cameras beside each other, and the share of visible points that both observe."""

    images: tuple[int, int]
    common: float

    @property
    def contradict(self) -> bool:
        """Whether so few common points contradict their poses."""
        return self.common < _LEAST_COMMON


@dataclass(frozen=True)
class Judgement:
    """What speaks against a model and its images."""

    agreement: float | None  # share of the other images' verified matches; None without enough
    doubtful: dict[int, str]  # images whose pose is not believed, and why
    contradicted: int  # how many of these the matches or their neighbours contradict
    contradictions: tuple[tuple[int, int], ...]  # neighbours with little in common
    images: int
    turned: float | None = None  # share of the verified matches that rotations alone explain

    @property
    def fault(self) -> str:
        """Why the model is not taken; empty if it is."""
        if self.turned is not None and self.turned >= _TURNED_SHARE:
            return (
                f"{self.turned:.0%} of the verified matches are those of a camera that turns on "
                "the spot"
            )
        if self.agreement is not None and self.agreement < LEAST_AGREEMENT:
            return f"{1 - self.agreement:.0%} of the verified matches contradict its poses"
        if self.contradicted > max(1, _MOST_CONTRADICTED * self.images):
            reason = list(self.doubtful.values())[-self.contradicted]
            return f"{self.contradicted} of its {self.images} images do not fit ({reason})"
        return ""


def judge(model: "pycolmap.Reconstruction", database: Path) -> Judgement:
    """Judge a model by the verified matches of its database, and by what its cameras observe."""
    pairs, neighbours = verified_pairs(model, database), neighbours_of(model)
    counts = {number: model.images[number].num_points3D for number in model.reg_image_ids()}
    doubtful = {
        number: counted(n, "point") for number, n in sorted(counts.items()) if n < _MIN_POINTS
    }
    few = len(doubtful)
    _add_contradicted(doubtful, set(counts), pairs, neighbours)
    contradictions = tuple(of.images for of in neighbours if of.contradict)
    contradicted = len(doubtful) - few
    believed = [pair for pair in pairs if not set(pair.images) & set(doubtful)]
    turned = turned_share(model, database)
    return Judgement(
        agreement(believed), doubtful, contradicted, contradictions, len(counts), turned
    )


def verified_pairs(model: "pycolmap.Reconstruction", database: Path) -> list[VerifiedPair]:
    """The pairs of registered images with verified matches."""
    found = []
    for numbers, on_plane, focal_px in _matches(model, database):
        a, b = (model.images[number] for number in numbers)
        b_from_a = b.cam_from_world() * a.cam_from_world().inverse()
        essential = pycolmap.essential_matrix_from_pose(b_from_a)
        squared = np.array(pycolmap.compute_squared_sampson_error(*on_plane, essential))
        near = int((np.sqrt(squared) * focal_px < _VERIFIED_PX).sum())  # NaN is not
        found.append(VerifiedPair(numbers, len(on_plane[0]), near))
    return found


def turned_share(model: "pycolmap.Reconstruction", database: Path) -> float | None:
    """Share of the verified matches that rotations alone explain, at the focal length of the most.

    Near 1, the images were taken from one place and show no depth. Matches that a lens does not
    reach say nothing of it. None without enough matches.
    """
    reached = (
        (np.hstack(on_plane), focal_px) for _, on_plane, focal_px in _matches(model, database)
    )
    finite = ((rows[np.isfinite(rows).all(axis=1)], focal_px) for rows, focal_px in reached)
    pairs = [(rows, focal_px) for rows, focal_px in finite if len(rows) >= _MIN_VERIFIED]
    if not pairs:
        return None
    pairs = [pairs[index] for index in _spread_indices(len(pairs), _TURNED_PAIRS)]
    counts = np.zeros(len(_FOCAL_SCALES))
    total = 0
    for rows, focal_px in pairs:
        some = rows[_spread_indices(len(rows), _TURNED_MATCHES)]
        total += len(some)
        for index, scale in enumerate(_FOCAL_SCALES):
            error = _rotation_error(some[:, :2] / scale, some[:, 2:] / scale)
            counts[index] += (error * scale * focal_px < _TURNED_PX).sum()
    return float(counts.max() / total)


def _spread_indices(count: int, most: int) -> Array:
    """At most `most` of `count` indices, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _rotation_error(a: Array, b: Array) -> Array:
    """Distances [N] of points [N, 2] on the image plane from those that the best rotation maps."""
    rays_a, rays_b = (np.column_stack([plane, np.ones(len(plane))]) for plane in (a, b))
    rays_a /= np.linalg.norm(rays_a, axis=1, keepdims=True)
    unit_b = rays_b / np.linalg.norm(rays_b, axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(unit_b.T @ rays_a)
    turned = rays_a @ (u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt).T
    ahead = turned[:, 2] > 0
    error = np.full(len(a), np.inf)
    error[ahead] = np.linalg.norm(turned[ahead, :2] / turned[ahead, 2:] - b[ahead], axis=1)
    return error


def _matches(
    model: "pycolmap.Reconstruction", database: Path
) -> Iterator[tuple[tuple[int, int], tuple[Array, Array], float]]:
    """Registered pairs: images, verified matches [N, 2] on both image planes, focal length, px.

    NaN stands for pixels that a lens does not reach, as a wrong one does not.
    """
    with pycolmap.Database.open(database) as opened:
        ids, geometries = opened.read_two_view_geometries()
        pixels = {number: opened.read_keypoints(number)[:, :2] for number in model.reg_image_ids()}
    for pair, geometry in zip(ids, geometries, strict=True):
        rows = np.asarray(geometry.inlier_matches, np.int64).reshape(-1, 2)
        a, b = (int(number) for number in pycolmap.pair_id_to_image_pair(pair))
        if not len(rows) or not {a, b} <= set(pixels):
            continue
        lenses = [model.cameras[model.images[number].camera_id] for number in (a, b)]
        on_a, on_b = (
            plane_points(lens, pixels[number][rows[:, side]])
            for side, (lens, number) in enumerate(zip(lenses, (a, b), strict=True))
        )
        yield (a, b), (on_a, on_b), float(np.mean([lens.mean_focal_length() for lens in lenses]))


def agreement(pairs: Sequence[VerifiedPair]) -> float | None:
    """Share of the verified matches near the epipolar lines.

    Pairs with few matches do not count, since those agree by chance; None without any other pair.
    """
    counted = [pair for pair in pairs if pair.total >= _MIN_VERIFIED]
    total = sum(pair.total for pair in counted)
    return sum(pair.near for pair in counted) / total if total else None


def neighbours_of(model: "pycolmap.Reconstruction") -> list[Neighbours]:
    """Cameras beside each other that have points in view, and what they have in common."""
    numbers = sorted(model.reg_image_ids())
    xyz, observed = _points(model, numbers)
    centres = np.array([model.images[number].projection_center() for number in numbers])
    shares: dict[tuple[int, int], list[float]] = {}
    for a, number in enumerate(numbers):
        own = xyz[observed[number]]
        if len(own) < _MIN_VISIBLE:
            continue
        apart = np.linalg.norm(centres - centres[a], axis=1)
        depth = np.median(np.linalg.norm(own - centres[a], axis=1))
        near = np.flatnonzero(apart < 2 * depth * np.tan(np.radians(_BESIDE_DEG)))
        near = near[np.argsort(apart[near], kind="stable")]
        for b in near[near != a][:_MOST_BESIDE]:
            share = _common_share(model, xyz, observed, (number, numbers[b]), centres[[a, b]])
            if share is not None:
                shares.setdefault((min(number, numbers[b]), max(number, numbers[b])), []).append(
                    share
                )
    # A blurred image observes little of a sharp one's, but most of its own is in the other.
    return [Neighbours(pair, max(of)) for pair, of in sorted(shares.items())]


def _points(
    model: "pycolmap.Reconstruction", numbers: Sequence[int]
) -> tuple[Array, dict[int, Array]]:
    """Points [P, 3] of enough images, and for each image the rows of those that it observes."""
    xyz, rows = [], {number: [] for number in numbers}
    for key in sorted(model.points3D):
        point = model.points3D[key]
        images = {element.image_id for element in point.track.elements}
        if len(images) >= _TRACK:
            for number in images:
                rows[number].append(len(xyz))
            xyz.append(point.xyz)
    return np.array(xyz).reshape(-1, 3), {n: np.array(of, np.int64) for n, of in rows.items()}


def _common_share(
    model: "pycolmap.Reconstruction",
    xyz: Array,
    observed: dict[int, Array],
    pair: tuple[int, int],
    centres: Array,  # [2, 3]
) -> float | None:
    """Share of the first image's points in view of the second that it observes too.

    None when few are in view, or when their rays differ by more than neighbours' do.
    """
    image = model.images[pair[1]]
    lens = model.cameras[image.camera_id]
    rows = observed[pair[0]]
    in_camera = xyz[rows] @ image.cam_from_world().rotation.matrix().T
    in_camera += image.cam_from_world().translation
    rows, in_camera = rows[in_camera[:, 2] > 0], in_camera[in_camera[:, 2] > 0]
    if len(rows) < _MIN_VISIBLE:
        return None
    pixels = np.array(lens.img_from_cam(in_camera)).reshape(-1, 2)
    rows = rows[((pixels > 0) & (pixels < [lens.width, lens.height])).all(axis=1)]
    if len(rows) < _MIN_VISIBLE:
        return None
    rays = xyz[rows] - centres[:, None]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    angles = np.degrees(np.arccos(np.clip((rays[0] * rays[1]).sum(axis=-1), -1, 1)))
    if np.median(angles) > _BESIDE_DEG:
        return None
    return float(np.isin(rows, observed[pair[1]]).mean())


def _add_contradicted(
    doubtful: dict[int, str],
    images: set[int],
    pairs: Sequence[VerifiedPair],
    neighbours: Sequence[Neighbours],
) -> None:
    """Add contradicted images, the worst first; each is judged without those before it."""
    while True:
        left = images - set(doubtful)
        worst: tuple[float, int, str] | None = None
        for number in sorted(left):
            found = _doubt(number, left, pairs, neighbours)
            if found is not None and (worst is None or found[0] > worst[0]):
                worst = found[0], number, found[1]
        if worst is None:
            return
        doubtful[worst[1]] = worst[2]


def _doubt(
    number: int, left: set[int], pairs: Sequence[VerifiedPair], neighbours: Sequence[Neighbours]
) -> tuple[float, str] | None:
    """How doubtful an image is and why, by the images that are left; None if it is believed."""
    own = [pair for pair in pairs if number in pair.images and set(pair.images) <= left]
    counted = [pair for pair in own if pair.total >= _MIN_VERIFIED] or own
    total, near = sum(pair.total for pair in counted), sum(pair.near for pair in counted)
    if near < LEAST_AGREEMENT * total or not total:
        reason = f"{total - near} of {total} verified matches contradict its pose"
        return (1 - near / total, reason) if total else (1.0, "no verified match")
    beside = [of for of in neighbours if number in of.images and set(of.images) <= left]
    against = sum(of.contradict for of in beside)
    if against and 2 * against >= len(beside):
        reason = f"{against} of {len(beside)} cameras beside it observe other points"
        return against / len(beside) + 0.001 * against, reason
    return None


def focal_deviation(model: "pycolmap.Reconstruction") -> float:
    """Standard deviation that bundle adjustment leaves to a focal length, as a share of it.

    The largest of the model's lenses, from the curvature of the reprojection error and its size;
    infinite where the images do not determine one, as of a plane that cameras face straight on.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    adjusted = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        adjusted.add_image(number)
    adjusted.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, adjusted, model)
    found = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), model, adjuster)
    if found is None:
        return float("inf")
    lenses = {model.images[number].camera_id for number in model.reg_image_ids()}
    largest = 0.0
    for lens in (model.cameras[number] for number in sorted(lenses)):
        covariance = found.get_other_params_cov(lens.params)
        if covariance is None:
            return float("inf")
        count = len(lens.focal_length_idxs())  # the first parameters of each of COLMAP's models
        variance = np.diag(covariance)[:count].max() / lens.mean_focal_length() ** 2
        largest = max(largest, float(np.sqrt(variance)))
    # The mean length of an error of two normal coordinates is 1.25 of their deviation.
    return largest * model.compute_mean_reprojection_error() / np.sqrt(np.pi / 2)
