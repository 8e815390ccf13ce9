"""Novel views measured against photographs: the numbers of each view, and their means.

Every view and every scene has the same keys; what was not measured is None.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.quality.lpips import Lpips
from stages.quality.masked import mlpips, mpsnr, mssim
from stages.quality.psnr import psnr
from stages.quality.ssim import ssim
from stages.run.files import text_hash

MEASURES = ("psnr", "ssim", "lpips")
MASKED = ("mpsnr", "mssim", "mlpips")
KEYS = (*MEASURES, *(f"{name}_aligned" for name in MEASURES), *MASKED)
COLUMNS = ["timestamp", "camera", *KEYS]
# Equal images have no finite PSNR, and JSON no infinity.
HIGHEST_PSNR_DB = 120.0

Row = dict[str, Any]
Image = NDArray[np.float32]  # [H, W, 3]


@dataclass(frozen=True, eq=False)
class Shown:
    """One target view: its photograph, and what a method shows in its place."""

    timestamp: str
    camera: str
    photograph: Image
    given: Image
    aligned: Image | None = None
    mask: NDArray[np.bool_] | None = None  # [H, W]


@torch.inference_mode()
def measure(shown: Shown, lpips: Lpips | None, device: str = "cpu") -> Row:
    """The row of one view; without `lpips` its columns are None."""
    photograph = _batch(shown.photograph, device)
    row: Row = {"timestamp": shown.timestamp, "camera": shown.camera} | dict.fromkeys(KEYS)
    for suffix, image in (("", shown.given), ("_aligned", shown.aligned)):
        if image is not None:
            values = _values(photograph, _batch(image, device), lpips)
            row |= {name + suffix: values[name] for name in MEASURES}
    # Nobody in a view: nothing to measure there.
    if shown.mask is not None and shown.mask.any():
        mask = torch.from_numpy(shown.mask)[None, None].to(device)
        given = _batch(shown.given, device)
        row["mpsnr"] = _decibels(mpsnr(photograph, given, mask))
        row["mssim"] = _rounded(mssim(photograph, given, mask))
        row["mlpips"] = _rounded(mlpips(photograph, given, mask, lpips)) if lpips else None
    return row


def scene_means(rows: Sequence[Row]) -> dict[str, float | None]:
    """Mean of each column over the views that have it."""
    return {key: mean([row[key] for row in rows if row[key] is not None]) for key in KEYS}


def mean(values: Sequence[float]) -> float | None:
    """Mean to six decimals; None of nothing."""
    return round(float(np.mean(values)), 6) if values else None


def mean_color(photographs: Iterable[Image]) -> NDArray[np.float64]:
    """Mean colour [3] of all pixels of all photographs."""
    sums, pixels = np.zeros(3), 0
    for image in photographs:
        sums += image.sum(axis=(0, 1), dtype=np.float64)
        pixels += image.shape[0] * image.shape[1]
    assert pixels, "no photographs"
    return sums / pixels


def flat_psnr(photograph: Image, color: NDArray[np.float64]) -> float:
    """PSNR in dB of an image of one colour: what knowing nothing else of a scene is worth."""
    return min(float(-10 * np.log10(np.square(photograph - color).mean())), HIGHEST_PSNR_DB)


def protocol(views: Mapping[str, str], size: str, lpips: str, masks: str) -> str:
    """What must be equal for numbers to compare; `views` maps each view to its photograph's hash.

    >>> protocol({"000021/28": "ab", "000021/64": "cd"}, "192x256", "alex 12345678", "ignore")
    '192x256, 2 views b12b6c7e, lpips alex 12345678, masks ignore'
    """
    digest = text_hash(*(part for view in sorted(views.items()) for part in view))[:8]
    return f"{size}, {len(views)} views {digest}, lpips {lpips}, masks {masks}"


def _values(a: Tensor, b: Tensor, lpips: Lpips | None) -> dict[str, float | None]:
    return {
        "psnr": _decibels(psnr(a, b)),
        "ssim": _rounded(ssim(a, b)),
        "lpips": _rounded(lpips(a, b)) if lpips else None,
    }


def _decibels(value: Tensor) -> float:
    return min(_rounded(value), HIGHEST_PSNR_DB)


def _rounded(value: Tensor) -> float:
    return round(float(value), 6)


def _batch(image: Image, device: str) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
