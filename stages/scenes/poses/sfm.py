"""Structure from motion for static cameras.

The cameras do not move, so the features of all timestamps of a camera are pooled into one virtual
image: only features of equal timestamps are matched, and all timestamps estimate the same pose.
Points are triangulated afterwards, for each timestamp separately, with fixed poses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.plurals import counted
from stages.run.process.cores import available_cores
from stages.scenes import colmap
from stages.scenes.cameras import Array, Camera, mean_distance, rotation_from_vector
from stages.scenes.config import CalibrateConfig
from stages.scenes.poses import colmap_pooled
from stages.scenes.poses.colmap_pooled import Pair, Tracks
from stages.scenes.poses.evidence import TrackErrors, hold_out, track_errors, verified_tracks
from stages.scenes.poses.prior_adjustment import (
    Observations,
    PoseSigma,
    PriorAdjustment,
    adjust_to_priors,
)

_MIN_TRACKS = 30  # fewer do not constrain a bundle adjustment
_MIN_POINTS = 15  # of a camera
_MIN_AGREEMENT = 0.5  # of a pair's verified matches with the initial poses
MIN_VERIFIED = 40  # of a pair, so that they are not by chance
_LEAST_AGREEMENT = 0.7  # of all verified matches with a model
_ROUNDS = (1.0, 0.25, 0.0)  # shares of the initial poses' error
_SCALE = 2.5  # of the robust loss, times the noise
_MIN_NOISE_PX = 0.05
_MOST_MATCHES = 4000  # of a pair, on average, that poses are estimated from
_MOST_SIGMA = 5.0  # a camera's distance from its prior
_MOST_TOGETHER = 4.0  # standard deviations of the mean square of all distances
_FOCAL_LEFT = 0.9  # share of the prior deviation of focal lengths that is too little determined
_OTHER_POSES = (
    "take images with less repeated texture, or start from poses with calibrate.method=perturbed"
)
_NOT_REFINED = "poses not refined"
_UNKNOWN_DEG, _UNKNOWN_SHARE = 10.0, 0.5  # priors of poses that only the images determine
_MOST_PARAMETERS = 60_000  # cameras times points of the last adjustment


@dataclass(frozen=True, eq=False)
class PooledFeatures:
    """Features of all timestamps by camera; row i of `of[camera]` is of frame `frame[camera][i]`.

    A frame is the index of a timestamp.
    """

    of: dict[str, colmap.Features]
    frame: dict[str, NDArray[np.int64]]
    color: dict[str, NDArray[np.uint8]]  # [N, 3] at each feature


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated cameras, and what tells without the true ones how good they are.

    `errors` are of tracks of verified matches that took no part in a bundle adjustment with priors,
    `errors_before` of the same tracks at the approximate cameras. `agreement` is the share of the
    verified matches near the epipolar lines, `focal_share` the largest share of the focal
    lengths' prior deviation that the images left. `pose_covariance` is that of a `Calibration`.
    """

    cameras: dict[str, Camera]
    refined: bool
    verified: Mapping[Pair, NDArray[np.uint32]] = field(default_factory=dict)
    agreement: float | None = None
    errors: TrackErrors | None = None
    errors_before: TrackErrors | None = None
    focal_share: float | None = None
    notes: tuple[str, ...] = ()
    pose_covariance: Mapping[str, Array] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What a user should know of the estimate; empty if nothing."""
        return "; ".join(self.notes)


def perturb(cameras: Mapping[str, Camera], config: CalibrateConfig) -> dict[str, Camera]:
    """Cameras with seeded noise on rotation, centre and focal length."""
    rng = np.random.default_rng(config.seed)
    unit = config.translation_noise * mean_distance(list(cameras.values()))
    noisy = {}
    for name, camera in cameras.items():
        angles = np.radians(config.rotation_noise_deg) * rng.standard_normal(3)
        rotation = rotation_from_vector(angles) @ camera.cam_from_world[:3, :3]
        centre = camera.centre + unit * rng.standard_normal(3)
        K = camera.K.copy()
        K[[0, 1], [0, 1]] *= 1 + config.focal_noise * rng.standard_normal()
        cam_from_world = np.eye(4)
        cam_from_world[:3, :3], cam_from_world[:3, 3] = rotation, -rotation @ centre
        noisy[name] = Camera(name, K, cam_from_world, camera.width, camera.height)
    return noisy


def noise_sigma(cameras: Mapping[str, Camera], config: CalibrateConfig) -> PoseSigma:
    """Standard deviations of the noise that `perturb` adds to these cameras."""
    focal = config.focal_noise if config.refine_focal else 0.0
    centre = config.translation_noise * mean_distance(list(cameras.values()))
    return PoseSigma(config.rotation_noise_deg, centre, focal)


def refine(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
    sigma: PoseSigma | None = None,
) -> Estimate:
    """Bundle adjustment of approximate cameras that holds them near where they began.

    The cameras are returned as they came when too few matches agree with them; when the result
    leaves their neighbourhood: no camera may move by more than its priors' standard deviations
    allow, nor all together; and when tracks that were held out fit the start better, or neither.
    Otherwise the last adjustment has these tracks as well.

    Args:
        cameras: approximate ones, by name.
        features: of these cameras.
        matches: rows [M, 2] of features for pairs of cameras.
        config: section `calibrate`.
        sigma: of the cameras; by default that of the configured noise.
    """
    sigma = sigma or noise_sigma(cameras, config)
    keypoints = {name: pooled.keypoints for name, pooled in features.of.items()}
    verified = verify(cameras, features, matches, config)
    held, rest = hold_out(keypoints, verified)
    before = track_errors(cameras, held, config.max_epipolar_error_px)
    kept = Estimate(
        dict(cameras),
        False,
        verified,
        agreement(cameras, features, verified, config),
        before,
        before,
        pose_covariance=covariance_of(sigma, cameras),
    )
    if not sigma.free.any():
        return kept
    rounds = _Rounds(cameras, features, config, sigma)
    current, noise_px = dict(cameras), 1.0
    # Each round's cameras allow a stricter tolerance in the next one.
    for share in _ROUNDS:
        tracks = rounds.tracks(current, rest, share)
        if len(tracks.points) < _MIN_TRACKS:
            points = counted(len(tracks.points), "point")
            note = f"{points} in agreement with the poses: {_NOT_REFINED}"
            return replace(kept, notes=(note,))
        adjusted = rounds.adjusted(current, tracks, share, noise_px)
        current, noise_px = adjusted.cameras, max(min(adjusted.noise_px, 1.0), _MIN_NOISE_PX)
    most_px = config.max_epipolar_error_px
    after = track_errors(current, held, most_px)
    note = _departure(cameras, adjusted, sigma) or _unsupported(before, after, most_px)
    if note:
        return replace(kept, notes=(f"{note}: {_NOT_REFINED}",))
    # They agree with what was held out, which then estimates them as well.
    tracks = rounds.tracks(current, verified, 0.0)
    adjusted = rounds.adjusted(current, tracks, 0.0, noise_px)
    current = adjusted.cameras
    return Estimate(
        current,
        True,
        verified,
        agreement(current, features, verified, config),
        after,
        before,
        float(adjusted.focal_shares(sigma)[-1]) if sigma.free[6] else None,
        tuple(_notes(adjusted, tracks, sigma)),
        adjusted.pose_covariance(),
    )


@dataclass(frozen=True, eq=False)
class _Rounds:
    """What rounds of bundle adjustment with priors share."""

    priors: Mapping[str, Camera]
    features: PooledFeatures
    config: CalibrateConfig
    sigma: PoseSigma

    def tracks(
        self,
        current: Mapping[str, Camera],
        matches: Mapping[Pair, NDArray[np.uint32]],
        share: float,
    ) -> Tracks:
        """Points of the matches that agree with poses of a share of the priors' errors."""
        keypoints = {name: pooled.keypoints for name, pooled in self.features.of.items()}
        error_deg = share * _ray_error_deg(self.priors, self.sigma)
        tolerance_px = self.config.max_epipolar_error_px + 2 * self._px(error_deg)
        near = agreeing(current, self.features, matches, tolerance_px)
        tracks = colmap_pooled.triangulate(
            current, keypoints, near, thresholds(self.config), error_deg, self.features.frame
        )
        most = _MOST_PARAMETERS if share == _ROUNDS[-1] else _MOST_PARAMETERS // 4
        return tracks.thinned(most // len(self.priors))

    def adjusted(
        self, current: Mapping[str, Camera], tracks: Tracks, share: float, noise_px: float
    ) -> PriorAdjustment:
        """Cameras and points, adjusted."""
        keypoints = {name: pooled.keypoints for name, pooled in self.features.of.items()}
        observed = Observations(tracks.point, tracks.camera, pixels_of(tracks, keypoints))
        error_px = self._px(share * _ray_error_deg(self.priors, self.sigma))
        scale_px = max(_SCALE * noise_px, error_px / 3)
        return adjust_to_priors(
            self.priors, current, tracks.points, observed, self.sigma, scale_px, noise_px
        )

    def _px(self, degrees: float) -> float:
        focal_px = np.median([camera.K[0, 0] for camera in self.priors.values()])
        return float(focal_px * np.radians(degrees))


def covariance_of(sigma: PoseSigma, cameras: Mapping[str, Camera]) -> dict[str, Array]:
    """Covariances [6, 6] of the priors' errors, by camera."""
    return {name: np.diag(np.square(sigma.vector[:6])) for name in cameras}


def _unsupported(before: TrackErrors | None, after: TrackErrors | None, most_px: float) -> str:
    """That held-out tracks contradict the result, or fit its start better; empty if not."""
    if before is None or after is None:
        return ""
    if after.median_px <= min(before.median_px, most_px):
        return ""
    return (
        f"held-out matches are {after.median_px:.2f} px from the adjusted poses, "
        f"{before.median_px:.2f} px from the approximate ones"
    )


def _departure(cameras: Mapping[str, Camera], adjusted: PriorAdjustment, sigma: PoseSigma) -> str:
    """Which camera left the neighbourhood of its prior, in words; empty if none did."""
    moved = adjusted.moved / sigma.vector
    parts = ((slice(0, 3), "rotation"), (slice(3, 6), "centre"), (slice(6, 7), "focal length"))
    for part, what in parts:
        distance = np.linalg.norm(moved[:, part], axis=1)
        worst = int(distance.argmax())
        if distance[worst] > _MOST_SIGMA:
            name = list(cameras)[worst]
            return f"the {what} of camera {name} moved by {distance[worst]:.1f} standard deviations"
    free = moved[:, sigma.free]
    # Mean squares of right priors are 1 at most; their own deviation is as of chi squared.
    together, limit = float(np.square(free).mean()), 1 + _MOST_TOGETHER * np.sqrt(2 / free.size)
    if together > limit:
        return f"the cameras moved by {np.sqrt(together):.1f} standard deviations on average"
    return ""


def _notes(adjusted: PriorAdjustment, tracks: Tracks, sigma: PoseSigma) -> Iterator[str]:
    """Cameras with few points, and those whose focal lengths are left to their priors."""
    counts = np.bincount(tracks.camera, minlength=len(adjusted.cameras))
    counted = dict(zip(adjusted.cameras, counts, strict=True))
    few = [name for name, count in counted.items() if count < _MIN_POINTS]
    if few:
        yield f"not refined, with fewer than {_MIN_POINTS} points: {', '.join(few)}"
    if not sigma.free[6]:
        return
    share = adjusted.focal_shares(sigma)[-1]
    if share >= _FOCAL_LEFT and not few:
        yield (
            f"the images do not determine the focal lengths: {share:.0%} of the uncertainty before "
            "(calibrate.focal_noise) is left, as where cameras face a plane or in one direction"
        )


def _ray_error_deg(cameras: Mapping[str, Camera], sigma: PoseSigma) -> float:
    """By how much rays of the approximate cameras may miss their point, three sigma, degrees."""
    distance = max(mean_distance(list(cameras.values())), 1e-9)
    half_px = max(np.hypot(camera.width, camera.height) / 4 for camera in cameras.values())
    focal_px = min(camera.K[0, 0] for camera in cameras.values())
    parts = (
        np.radians(sigma.rotation_deg),
        sigma.centre / distance,
        sigma.focal * half_px / focal_px / np.sqrt(2),
    )
    return float(np.degrees(3 * np.sqrt(2) * np.linalg.norm(parts)))


def reprojection_errors_px(cameras: Sequence[Camera], tracks: Tracks, pixels: Array) -> Array:
    """Distances [O] of the tracks' pixels [O, 2] from their points' projections."""
    errors = np.zeros(len(pixels))
    for number, camera in enumerate(cameras):
        own = tracks.camera == number
        projected, _ = camera.project(tracks.points[tracks.point[own]])
        errors[own] = np.linalg.norm(projected - pixels[own], axis=1)
    return errors


def pixels_of(tracks: Tracks, keypoints: Mapping[str, Array]) -> Array:
    """Pixels [O, 2] of the tracks' observations."""
    return tracks.observed(list(keypoints.values()))


def thresholds(config: CalibrateConfig) -> colmap_pooled.Thresholds:
    return colmap_pooled.Thresholds(
        config.max_reprojection_error_px,
        config.min_triangulation_angle_deg,
        config.seed,
        available_cores(),
    )


def reconstruct(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> Estimate:
    """Structure from motion without poses; intrinsics are those of `cameras`.

    Raises UserError that names the weakest pairs when too few cameras are registered, and when the
    verified matches contradict the model.
    """
    limits = thresholds(config)
    keypoints = {name: pooled.keypoints for name, pooled in features.of.items()}
    verified = verify(cameras, features, matches, config)
    registered = colmap_pooled.map_incrementally(cameras, keypoints, verified, limits)
    if len(registered) < max(2, config.min_registered * len(cameras)):
        raise _too_few(cameras, registered, verified, config)
    share = agreement(registered, features, verified, config)
    if share is not None and share < _LEAST_AGREEMENT:
        raise UserError(
            "calibrate",
            f"{1 - share:.0%} of the verified matches contradict the cameras of the model",
            expected=f"at most {1 - _LEAST_AGREEMENT:.0%}",
            fix=_OTHER_POSES,
        )
    errors = errors_of(registered, features, verified, config)
    if errors is not None and errors.median_px > config.max_epipolar_error_px:
        raise UserError(
            "calibrate",
            f"tracks of verified matches are {errors.median_px:.1f} px from the cameras of the "
            "model",
            expected=f"at most {config.max_epipolar_error_px:g} px "
            "(calibrate.max_epipolar_error_px)",
            fix=_OTHER_POSES,
        )
    covariance = _covariance_from_images(registered, features, verified, config)
    return Estimate(registered, True, verified, share, errors, notes=(), pose_covariance=covariance)


def errors_of(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    verified: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> TrackErrors | None:
    """Errors of all tracks of the verified matches of these cameras, of pairs with enough."""
    keypoints = {name: features.of[name].keypoints for name in cameras}
    tracks = verified_tracks(keypoints, _certain(verified, cameras))
    return track_errors(cameras, tracks, config.max_epipolar_error_px)


def _certain(
    verified: Mapping[Pair, NDArray[np.uint32]], cameras: Mapping[str, Camera]
) -> dict[Pair, NDArray[np.uint32]]:
    """The pairs of these cameras with more matches than agree with a geometry by chance."""
    return {
        pair: rows
        for pair, rows in verified.items()
        if set(pair) <= set(cameras) and len(rows) >= MIN_VERIFIED
    }


def _covariance_from_images(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    verified: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> dict[str, Array]:
    """Covariances of the poses of a model, from the residuals of its points."""
    keypoints = {name: features.of[name].keypoints for name in cameras}
    kept = {pair: rows for pair, rows in verified.items() if set(pair) <= set(cameras)}
    near = near_epipolar(cameras, features, kept, config.max_epipolar_error_px)
    tracks = colmap_pooled.triangulate(cameras, keypoints, near, thresholds(config))
    tracks = tracks.thinned(_MOST_PARAMETERS // 4 // len(cameras))
    if len(tracks.points) < _MIN_TRACKS:
        return {}
    observed = Observations(tracks.point, tracks.camera, pixels_of(tracks, keypoints))
    errors = reprojection_errors_px(list(cameras.values()), tracks, observed.pixel)
    noise_px = max(float(np.median(errors)), _MIN_NOISE_PX)
    sigma = PoseSigma(_UNKNOWN_DEG, _UNKNOWN_SHARE * mean_distance(list(cameras.values())), 0.0)
    return adjust_to_priors(
        cameras, cameras, tracks.points, observed, sigma, _SCALE * noise_px, noise_px
    ).pose_covariance()


def verify(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> dict[Pair, NDArray[np.uint32]]:
    """Matches that agree with a two-view geometry, of as many timestamps as poses need."""
    keypoints = {name: pooled.keypoints for name, pooled in features.of.items()}
    some = _fewer_timestamps(features, matches)
    return colmap_pooled.verify(cameras, keypoints, some, thresholds(config))


def agreement(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    verified: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> float | None:
    """Share of the verified matches of these cameras near their epipolar lines; None without any.

    The matches were verified by pairs, each with a geometry of its own, without these poses. Pairs
    with few of them do not count: some twenty wrong matches agree with a geometry by chance.
    """
    own = _certain(verified, cameras)
    count = sum(map(len, own.values()))
    near = near_epipolar(cameras, features, own, config.max_epipolar_error_px)
    return sum(map(len, near.values())) / count if count else None


def _fewer_timestamps(
    features: PooledFeatures, matches: Mapping[Pair, NDArray[np.uint32]]
) -> dict[Pair, NDArray[np.uint32]]:
    """The matches of so many timestamps, spread evenly, as poses are estimated from."""
    count = sum(map(len, matches.values())) / max(len(matches), 1)
    frames = np.unique(np.concatenate(list(features.frame.values())))
    keep = max(1, int(len(frames) * _MOST_MATCHES / max(count, 1)))
    if keep >= len(frames):
        return dict(matches)
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, keep).round().astype(int))]
    return {
        (a, b): rows[np.isin(features.frame[a][rows[:, 0]], chosen)]
        for (a, b), rows in matches.items()
    }


def agreeing(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    tolerance_px: float,
) -> dict[Pair, NDArray[np.uint32]]:
    """Matches near the epipolar lines of these poses, of pairs most of whose matches are."""
    near = near_epipolar(cameras, features, matches, tolerance_px)
    return {
        pair: rows if len(rows) >= _MIN_AGREEMENT * len(matches[pair]) else rows[:0]
        for pair, rows in near.items()
    }


def near_epipolar(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    tolerance_px: float,
) -> dict[Pair, NDArray[np.uint32]]:
    """The matches within `tolerance_px` of the epipolar lines of these poses."""
    near = {}
    for (a, b), pairs in matches.items():
        pixels_a = features.of[a].keypoints[pairs[:, 0]]
        pixels_b = features.of[b].keypoints[pairs[:, 1]]
        distance = sampson_px(cameras[a], cameras[b], pixels_a, pixels_b)
        near[a, b] = pairs[distance < tolerance_px]
    return near


def sampson_px(camera_a: Camera, camera_b: Camera, pixels_a: Array, pixels_b: Array) -> Array:
    """Sampson distance [N] of matches to the epipolar geometry of two cameras, px."""
    b_from_a = camera_b.cam_from_world @ camera_a.world_from_cam
    x, y, z = b_from_a[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    fundamental = np.linalg.inv(camera_b.K).T @ cross @ b_from_a[:3, :3] @ np.linalg.inv(camera_a.K)
    ones = np.ones((len(pixels_a), 1))
    a, b = np.hstack([pixels_a, ones]), np.hstack([pixels_b, ones])
    line_b, line_a = a @ fundamental.T, b @ fundamental
    residual = (b * line_b).sum(1)
    slope = np.square(line_b[:, :2]).sum(1) + np.square(line_a[:, :2]).sum(1)
    return np.abs(residual) / np.sqrt(np.maximum(slope, 1e-30))


def _too_few(
    cameras: Mapping[str, Camera],
    registered: Mapping[str, Camera],
    verified: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> UserError:
    # The best neighbour of each camera; cameras with a weak one cannot be registered.
    strongest = {
        name: max((len(rows), pair) for pair, rows in verified.items() if name in pair)
        for name in cameras
    }
    weakest = sorted({strongest[name] for name in cameras if name not in registered})[:3]
    pairs = ", ".join(f"{a}-{b} with {count} verified matches" for count, (a, b) in weakest)
    return UserError(
        "calibrate",
        f"{len(registered)} of {len(cameras)} cameras registered; weakest: {pairs}",
        expected=f"at least {config.min_registered:.0%} registered (calibrate.min_registered)",
        fix="add cameras between these (images of surfaces more than some 30 degrees apart share "
        "few features), raise calibrate.max_features, lower calibrate.peak_threshold, raise "
        "calibrate.ratio_test or prepare.height_px, or start from poses with "
        "calibrate.method=perturbed",
    )
