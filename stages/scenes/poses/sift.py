"""SIFT features by OpenCV, of several images at once on all cores; the only importer of OpenCV.

OpenCV takes a quarter of the time of COLMAP's extractor for as many features of equal accuracy.
Descriptors are COLMAP's: square roots of the shares of their sum (Arandjelovic and Zisserman 2012),
in whole numbers. What is found does not depend on the number of cores.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.run.process.cores import available_cores
from stages.scenes.cameras import Array
from stages.scenes.colmap_import import pycolmap
from stages.scenes.images import Pixels, nearest_colors

# One thread each; images are spread over the cores.
cv2.setNumThreads(1)

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_LAYERS = 3  # of an octave
_UNIT = 512.0  # a descriptor of unit length

ReadPixels = Callable[[], Pixels]  # an image [H, W, 3]


@dataclass(frozen=True, eq=False)
class Sift:
    """SIFT features of one image."""

    keypoints: Array  # [N, 2], px, centre of the first pixel at 0.5
    descriptors: NDArray[np.uint8]  # [N, 128], of length 512
    colors: NDArray[np.uint8]  # [N, 3] of the pixels there
    size: tuple[int, int]  # of the image: width, height


def detect_all(
    images: Sequence[ReadPixels], limit: int, peak_threshold: float, longest_px: int = 0
) -> Iterator[Sift]:
    """Features of each image, in order.

    Args:
        images: functions that read them.
        limit: most features of an image, the strongest.
        peak_threshold: least contrast of a feature, of a range of 1.
        longest_px: larger images are shrunk to this side first; 0 shrinks none.
    """

    def one(read: ReadPixels) -> Sift:
        return detect(read(), limit, peak_threshold, longest_px)

    with ThreadPoolExecutor(available_cores()) as pool:
        yield from pool.map(one, images)


def detect(image: Pixels, limit: int, peak_threshold: float, longest_px: int = 0) -> Sift:
    """Features of an image [H, W, 3]; see `detect_all`."""
    height, width = image.shape[:2]
    grey = np.rint(255 * (image @ _GREY)).astype(np.uint8)
    factor = 1.0
    if longest_px and max(width, height) > longest_px:
        factor = longest_px / max(width, height)
        small = max(1, round(width * factor)), max(1, round(height * factor))
        grey = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
    detector = cv2.SIFT_create(
        nfeatures=limit,
        nOctaveLayers=_LAYERS,
        contrastThreshold=_LAYERS * peak_threshold,  # OpenCV divides it by the layers
        enable_precise_upscale=True,
    )
    found, descriptors = detector.detectAndCompute(grey, None)
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    corners = cv2.KeyPoint_convert(found) if found else np.zeros((0, 2))
    scale = np.array([width, height]) / (grey.shape[1], grey.shape[0])
    keypoints = (np.asarray(corners, np.float64).reshape(-1, 2) + 0.5) * scale
    colors = nearest_colors(image, keypoints)
    return Sift(keypoints, _rooted(descriptors), colors, (width, height))


def _rooted(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.minimum(np.rint(_UNIT * np.sqrt(shares)), 255).astype(np.uint8)


def write(database: "pycolmap.Database", image: int, found: Sift) -> None:
    """Write the features of an image into COLMAP's database."""
    database.write_keypoints(image, found.keypoints.astype(np.float32))
    kind = pycolmap.FeatureExtractorType.SIFT
    database.write_descriptors(image, pycolmap.FeatureDescriptors(kind, found.descriptors))
