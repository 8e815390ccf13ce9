"""SIFT features of a scene's images and their matches, on all cores or matched on a GPU.

What is found does not depend on the number of cores.
"""

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.process.cores import available_cores
from stages.scenes.colmap import Features
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_matching import Matcher, match_pairs, progress_logged
from stages.scenes.config import CalibrateConfig
from stages.scenes.poses import sift
from stages.scenes.poses.colmap_pooled import Pair
from stages.scenes.poses.sfm import PooledFeatures
from stages.scenes.poses.sift import ReadPixels, Sift

_LOGGER = logging.getLogger(__name__)

_LEAST_BLOCK = 50
_LINE_EVERY_S = 20.0


def detect_and_match(
    images: Mapping[str, Sequence[ReadPixels]],
    config: CalibrateConfig,
    pairs: Sequence[Pair] | None = None,
    matcher: Matcher | None = None,
) -> tuple[PooledFeatures, dict[Pair, NDArray[np.uint32]]]:
    """Features of all timestamps by camera, and matches of equal timestamps of pairs of cameras.

    Args:
        images: functions that read the images of each camera, one per timestamp.
        config: section `calibrate`.
        pairs: of cameras; by default every pair.
        matcher: instead of COLMAP's.
    """
    pairs = list(combinations(images, 2)) if pairs is None else pairs
    count = max(map(len, images.values()), default=0)
    begin = time.perf_counter()
    found = _detect(images, config)
    between = time.perf_counter()
    # By timestamp, so that few images are held at once.
    of_images = [((a, k), (b, k)) for k in range(count) for a, b in pairs]
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch, "database.db")
        _write(database, found)
        named = [(_name(*first), _name(*second)) for first, second in of_images]
        with progress_logged(database, "matches", len(named), "matched pairs of images"):
            if matcher is not None:
                match_pairs(database, named, config.ratio_test, matcher)
            else:
                _match(database, Path(scratch, "pairs.txt"), named, config)
        rows = _read_matches(database, named)
    features, matches = _pooled(found, dict(zip(of_images, rows, strict=True)), pairs, count)
    _LOGGER.info(
        "%d features of %d images in %.1f s, %d matches of %d pairs in %.1f s",
        sum(len(of.keypoints) for of in features.of.values()),
        sum(map(len, found.values())),
        between - begin,
        sum(map(len, matches.values())),
        len(matches),
        time.perf_counter() - between,
    )
    return features, matches


def _detect(
    images: Mapping[str, Sequence[ReadPixels]], config: CalibrateConfig
) -> dict[str, list[Sift]]:
    flat = [(camera, read) for camera, of in images.items() for read in of]
    found: dict[str, list[Sift]] = {camera: [] for camera in images}
    last = time.perf_counter()
    all_of_them = sift.detect_all(
        [read for _, read in flat], config.max_features, config.peak_threshold
    )
    for number, ((camera, _), features) in enumerate(zip(flat, all_of_them, strict=True), start=1):
        found[camera].append(features)
        if time.perf_counter() - last > _LINE_EVERY_S:
            last = time.perf_counter()
            _LOGGER.info("images with features: %d of %d", number, len(flat))
    return found


def _name(camera: str, frame: int) -> str:
    return f"{camera}/{frame}"


def _write(path: Path, found: Mapping[str, Sequence[Sift]]) -> None:
    """Write a database with the features of all images, which share one camera."""
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        model = pycolmap.CameraModelId.SIMPLE_PINHOLE
        number = database.write_camera(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1))
        for camera, of_camera in found.items():
            for frame, features in enumerate(of_camera):
                image = database.write_image(
                    pycolmap.Image(name=_name(camera, frame), camera_id=number)
                )
                sift.write(database, image, features)


def _match(
    database: Path, listed: Path, pairs: Sequence[tuple[str, str]], config: CalibrateConfig
) -> None:
    listed.write_text("".join(f"{first} {second}\n" for first, second in pairs))
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, available_cores()
    options.skip_geometric_verification = True  # it follows, of all timestamps together
    options.sift.max_ratio = config.ratio_test
    # It writes a block of pairs at once, by which progress is seen.
    block = max(_LEAST_BLOCK, 4 * available_cores())
    pairing = pycolmap.ImportedPairingOptions(match_list_path=listed, block_size=block)
    pycolmap.match_image_pairs(database, options, pairing, device=pycolmap.Device.cpu)


def _read_matches(path: Path, pairs: Sequence[tuple[str, str]]) -> list[NDArray[np.uint32]]:
    """Rows [M, 2] of each pair of images."""
    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        return [database.read_matches(ids[first], ids[second]) for first, second in pairs]


def _pooled(
    found: Mapping[str, Sequence[Sift]],
    rows: Mapping[tuple[tuple[str, int], tuple[str, int]], NDArray[np.uint32]],
    pairs: Sequence[Pair],
    count: int,
) -> tuple[PooledFeatures, dict[Pair, NDArray[np.uint32]]]:
    of, frames, colors, starts = {}, {}, {}, {}
    for camera, features in found.items():
        counts = [len(each.keypoints) for each in features]
        of[camera] = Features(np.concatenate([each.keypoints for each in features]))
        frames[camera] = np.repeat(np.arange(len(counts)), counts)
        colors[camera] = np.concatenate([each.colors for each in features])
        starts[camera] = np.cumsum([0, *counts])
    matches = {}
    for a, b in pairs:
        parts = [np.zeros((0, 2), np.uint32)]
        for frame in range(count):
            start = np.array([starts[a][frame], starts[b][frame]], np.int64)
            parts.append((rows[(a, frame), (b, frame)] + start).astype(np.uint32))
        matches[a, b] = np.concatenate(parts)
    return PooledFeatures(of, frames, colors), matches
