"""Features and matches of images with blobs at known places."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from stages.scenes.config import CalibrateConfig
from stages.scenes.poses import colmap_features, sift
from stages.scenes.poses.colmap_features import detect_and_match
from stages.scenes.poses.sift import ReadPixels

CONFIG = CalibrateConfig(peak_threshold=0.002)
SIZE = 160  # px
SHIFT = np.array([3.0, 2.0])


def places(timestamp: int) -> np.ndarray:
    """Centres [N, 2] of the blobs of a timestamp, apart from each other."""
    random = np.random.default_rng(timestamp)
    grid = np.array(list(product(range(24, SIZE - 16, 18), repeat=2)), float)
    return grid + random.uniform(-4, 4, grid.shape)


def images(cameras: str, timestamps: int) -> dict[str, list[ReadPixels]]:
    """Images of blobs; those of each camera are shifted by SHIFT against the one before."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    reads: dict[str, list[ReadPixels]] = {}
    for number, camera in enumerate(cameras):
        reads[camera] = []
        for timestamp in range(timestamps):
            image = np.zeros((SIZE, SIZE))
            shades = np.random.default_rng(100 + timestamp).uniform(0.3, 1, (200, 2))
            for (x, y), (shade, stretch) in zip(
                places(timestamp) + number * SHIFT, shades, strict=False
            ):
                squared = (columns - x) ** 2 + ((rows - y) / (0.6 + stretch)) ** 2
                image += shade * np.exp(-squared / (2 * 3.0**2))
            shown = np.repeat(np.clip(image, 0, 1)[..., None], 3, axis=2).astype(np.float32)
            reads[camera].append(partial(np.copy, shown))
    return reads


def test_features_lie_on_blobs_at_pixel_centres() -> None:
    features, _ = detect_and_match(images("a", 1), CONFIG)
    found = features.of["a"].keypoints
    nearest = np.linalg.norm(found[None] - places(0)[:, None], axis=-1).min(axis=1)
    assert np.median(nearest) < 0.3


def test_matches_join_the_same_blob_of_the_same_time() -> None:
    features, matches = detect_and_match(images("ab", 2), CONFIG)
    rows = matches["a", "b"]
    assert len(rows) > 20
    times = [features.frame[name][rows[:, side]] for side, name in enumerate("ab")]
    assert (times[0] == times[1]).all()
    assert set(times[0]) == {0, 1}
    a, b = (features.of[name].keypoints[rows[:, side]] for side, name in enumerate("ab"))
    assert (np.linalg.norm(b - a - SHIFT, axis=1) < 1).mean() > 0.9


def test_chosen_pairs_alone_are_matched() -> None:
    reads = images("abc", 1)
    _, every = detect_and_match(reads, CONFIG)
    assert list(every) == [("a", "b"), ("a", "c"), ("b", "c")]
    _, some = detect_and_match(reads, CONFIG, [("b", "c")])
    assert list(some) == [("b", "c")]
    assert some["b", "c"].tolist() == every["b", "c"].tolist()
    assert len(some["b", "c"]) > 10


def test_results_do_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, results = images("abc", 1), []
    for cores in (1, 3):
        for module in (colmap_features, sift):
            monkeypatch.setattr(module, "available_cores", lambda cores=cores: cores)
        features, matches = detect_and_match(reads, CONFIG)
        keypoints = {name: of.keypoints.tolist() for name, of in features.of.items()}
        results.append((keypoints, {pair: rows.tolist() for pair, rows in matches.items()}))
    assert results[0] == results[1]
