"""Scenes with known poses for the benchmark of calibration: synthetic features, and images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stages.scenes.cameras import Array, Camera, look_at
from stages.scenes.colmap import Features
from stages.scenes.colmap_import import pycolmap
from stages.scenes.poses.sfm import Pair, PooledFeatures

_SIZE, _FOCAL_PX, _DISTANCE = (940, 1280), 1100.0, 4.0  # px, px and scene units; Hi4D's size
_VISIBLE = 0.7  # share of the points that a camera sees


@dataclass(frozen=True)
class Case:
    """Cameras on rings around random points; features, and matches of which some are wrong."""

    cameras: int
    apart_deg: float  # between neighbours
    timestamps: int
    points: int = 300  # a timestamp
    noise_px: float = 1.0
    outliers: float = 0.0  # share of the matches
    planar: bool = False
    random: bool = False  # places from pycolmap.synthesize_dataset instead of a ring
    seed: int = 0

    @property
    def name(self) -> str:
        """What the case is, in words."""
        where = "anywhere" if self.random else f"{self.apart_deg:g} deg apart"
        return (
            f"{self.cameras} cameras {where}, {self.timestamps} x {self.points} points"
            f"{' on a plane' if self.planar else ''}, {self.noise_px:g} px, "
            f"{self.outliers:.0%} wrong"
        )


CASES = (
    Case(4, 30, 1, noise_px=0.0),
    Case(4, 30, 1),
    Case(4, 30, 1, outliers=0.3),
    Case(4, 10, 1, outliers=0.3),
    Case(4, 60, 1, outliers=0.3),
    Case(4, 30, 1, points=60, outliers=0.3),
    Case(8, 20, 5, points=100, outliers=0.3),
    Case(16, 22.5, 1, outliers=0.3),
    Case(16, 60, 1, outliers=0.3),
    Case(6, 30, 50, points=200, outliers=0.3),
    Case(4, 30, 1, planar=True),
    Case(8, 30, 1, planar=True, outliers=0.3),
    Case(8, 0, 1, outliers=0.3, random=True),
)


def true_cameras(case: Case) -> dict[str, Camera]:
    """Cameras that look at the origin, by name."""
    width, height = _SIZE
    K = np.array([[_FOCAL_PX, 0, width / 2], [0, _FOCAL_PX, height / 2], [0, 0, 1.0]])
    eyes = _random_eyes(case) if case.random else _ring_eyes(case)
    return {
        f"{k:02d}": Camera(f"{k:02d}", K, look_at(eye, [0, 0, 0], [0, -1, 0]), width, height)
        for k, eye in enumerate(eyes)
    }


def _ring_eyes(case: Case) -> Iterator[Array]:
    """Places at equal angles, each lap of the ring higher than the last."""
    for k in range(case.cameras):
        lap, angle = divmod(k * case.apart_deg, 360.0)
        angle = np.radians(angle + 13 * lap)
        height = -0.3 - 0.8 * lap + 0.15 * (k % 3)
        yield np.array([_DISTANCE * np.sin(angle), height, -_DISTANCE * np.cos(angle)])


def _random_eyes(case: Case) -> Iterator[Array]:
    pycolmap.set_random_seed(case.seed)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=case.cameras, num_cameras_per_rig=1, num_frames_per_rig=1, num_points3D=8
    )
    model = pycolmap.synthesize_dataset(options)
    for number in sorted(model.images):
        centre = model.images[number].projection_center()
        yield _DISTANCE * centre / np.linalg.norm(centre)


def features_and_matches(
    case: Case, cameras: Mapping[str, Camera]
) -> tuple[PooledFeatures, dict[Pair, NDArray[np.uint32]]]:
    """Features of points within a unit of the origin, and matches of every pair of cameras."""
    rng = np.random.default_rng(case.seed)
    count = case.timestamps * case.points
    points = rng.uniform(-1, 1, (count, 3))
    if case.planar:
        points = points * [1, 1, 0] @ look_at([0.3, -0.2, -1], [0, 0, 0], [0, -1, 0])[:3, :3]
    frame = np.repeat(np.arange(case.timestamps), case.points)
    of, frames, colors, rows = {}, {}, {}, {}
    for name, camera in cameras.items():
        pixels = camera.project(points)[0] + case.noise_px * rng.standard_normal((count, 2))
        inside = ((pixels > 0) & (pixels < _SIZE)).all(axis=1)
        visible = np.flatnonzero(inside & (rng.random(count) < _VISIBLE))
        rows[name] = np.full(count, -1)
        rows[name][visible] = np.arange(len(visible))
        of[name] = Features(pixels[visible])
        frames[name] = frame[visible]
        colors[name] = np.zeros((len(visible), 3), np.uint8)
    matches = {}
    for a, b in combinations(cameras, 2):
        both = np.flatnonzero((rows[a] >= 0) & (rows[b] >= 0))
        pairs = np.stack([rows[a][both], rows[b][both]], axis=1)
        for time in range(case.timestamps):
            # A wrong match joins two points of one timestamp.
            wrong = np.flatnonzero((frame[both] == time) & (rng.random(len(both)) < case.outliers))
            pairs[wrong, 1] = np.roll(pairs[wrong, 1], 1)
        matches[a, b] = pairs.astype(np.uint32)
    return PooledFeatures(of, frames, colors), matches
