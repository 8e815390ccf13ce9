"""SIFT features of a scene's images and their matches, by COLMAP on all cores or on a GPU.

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
from stages.scenes.poses.colmap_pooled import Pair
from stages.scenes.poses.sfm import PooledFeatures

_LOGGER = logging.getLogger(__name__)

_LEAST_BLOCK = 50


def detect_and_match(
    root: Path,
    images: Mapping[str, Sequence[Path]],
    config: CalibrateConfig,
    pairs: Sequence[Pair] | None = None,
    matcher: Matcher | None = None,
) -> tuple[PooledFeatures, dict[Pair, NDArray[np.uint32]]]:
    """Features of all timestamps by camera, and matches of equal timestamps of pairs of cameras.

    Args:
        root: folder of all images.
        images: of each camera, one per timestamp; COLMAP reads what it can of a broken one.
        config: section `calibrate`.
        pairs: of cameras; by default every pair.
        matcher: instead of COLMAP's.

    Features have no descriptors and no colours.
    """
    names = {
        camera: [path.relative_to(root).as_posix() for path in paths]
        for camera, paths in images.items()
    }
    pairs = list(combinations(names, 2)) if pairs is None else pairs
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch, "database.db")
        begin = time.perf_counter()
        flat = [name for of in names.values() for name in of]
        with progress_logged(database, "descriptors", len(flat), "images with features"):
            _extract(database, root, flat, config)
        between = time.perf_counter()
        # By timestamp, so that few images are held at once.
        of_images = [(names[a][k], names[b][k]) for k in range(_frames(names)) for a, b in pairs]
        with progress_logged(database, "matches", len(of_images), "matched pairs of images"):
            if matcher is not None:
                match_pairs(database, of_images, config.ratio_test, matcher)
            else:
                _match(database, Path(scratch, "pairs.txt"), of_images, config)
        features, matches = _pooled(database, names, pairs)
        end = time.perf_counter()
    _LOGGER.info(
        "%d features of %d images in %.1f s, %d matches of %d pairs in %.1f s",
        sum(len(of.keypoints) for of in features.of.values()),
        sum(map(len, names.values())),
        between - begin,
        sum(map(len, matches.values())),
        len(matches),
        end - between,
    )
    return features, matches


def _frames(names: Mapping[str, Sequence[str]]) -> int:
    return max(map(len, names.values()), default=0)


def _extract(database: Path, root: Path, names: Sequence[str], config: CalibrateConfig) -> None:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads = False, available_cores()
    options.max_image_size = -1
    options.sift.max_num_features = config.max_features
    options.sift.peak_threshold = config.peak_threshold
    reader = pycolmap.ImageReaderOptions()
    mode = pycolmap.CameraMode.PER_IMAGE
    pycolmap.extract_features(
        database, root, list(names), mode, reader, options, device=pycolmap.Device.cpu
    )


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


def _pooled(
    path: Path, names: Mapping[str, Sequence[str]], pairs: Sequence[Pair]
) -> tuple[PooledFeatures, dict[Pair, NDArray[np.uint32]]]:
    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        of, frames, starts = {}, {}, {}
        for camera, images in names.items():
            found = [database.read_keypoints(ids[name])[:, :2] for name in images]
            counts = [len(keypoints) for keypoints in found]
            of[camera] = Features(
                np.concatenate(found).astype(np.float64), np.zeros((0, 128), np.float32)
            )
            frames[camera] = np.repeat(np.arange(len(counts)), counts)
            starts[camera] = np.cumsum([0, *counts])
        matches = {}
        for a, b in pairs:
            rows = [np.zeros((0, 2), np.uint32)]
            for frame, (first, second) in enumerate(zip(names[a], names[b], strict=True)):
                found = database.read_matches(ids[first], ids[second])
                start = [starts[a][frame], starts[b][frame]]
                rows.append((found + np.array(start, np.int64)).astype(np.uint32))
            matches[a, b] = np.concatenate(rows)
    return PooledFeatures(of, frames, {}), matches
