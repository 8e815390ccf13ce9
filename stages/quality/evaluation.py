"""Measures of novel views against ground truth, by view and in the mean.

Every view and every scene has the same keys; None where a measure is missing.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.quality.config import EvaluateConfig, SsimForm
from stages.quality.crops import Box
from stages.quality.floor import floor_warning
from stages.quality.keys import COLOR_CORRECTED, CROPPED, FLICKER, MEASURED, further_in
from stages.quality.metrics.color_corrected import cc_psnr
from stages.quality.metrics.flicker import Flicker
from stages.quality.metrics.lpips import LPIPS_PX, Lpips
from stages.quality.metrics.masked import mlpips, mpsnr, mssim
from stages.quality.metrics.psnr import HIGHEST_PSNR_DB, psnr
from stages.quality.metrics.ssim import SMALLEST_PX, TAPS, ssim, ssim_inside
from stages.quality.metrics.weights import absence, fingerprint, remedy
from stages.run.errors import UserError, raise_all
from stages.run.files import text_hash
from stages.run.plurals import counted

_LOGGER = logging.getLogger(__name__)

COLUMNS = ["timestamp", "camera", *MEASURED]
# Pixels in a batch on the GPU: LPIPS keeps about 2 KB of activations per pixel.
_BATCH_PX = 8_000_000
# Sides of the smallest box that all measures can take.
LEAST_BOX_PX = max(TAPS, LPIPS_PX)
_SSIM: dict[SsimForm, Callable[[Tensor, Tensor], Tensor]] = {
    "torchmetrics": ssim,
    "dycheck": ssim_inside,
}

Measures = dict[str, Any]
Image = NDArray[np.float32]  # [H, W, 3]


@dataclass(frozen=True, eq=False)
class MeasuredView:
    """One target view: its ground truth and a method's novel views of it."""

    timestamp: str
    camera: str
    truth: Image
    truth_sha256: str
    given: Image  # from the calibrated pose
    aligned: Image | None = None  # from the pose that was aligned to the Gaussians
    mask: NDArray[np.bool_] | None = None  # [H, W], pixels of the masked measures
    valid: NDArray[np.bool_] | None = None  # [H, W], pixels of all measures; None for all
    crop: Box | None = None  # the part of the measures `crop_...`

    @property
    def share(self) -> float:
        """The share of valid pixels."""
        return 1.0 if self.valid is None else max(float(self.valid.mean()), 1e-6)

    def filled(self, image: Image) -> Image:
        """An image with the ground truth in its invalid pixels."""
        if self.valid is None:
            return image
        return np.where(self.valid[..., None], image, self.truth)


@dataclass(frozen=True, eq=False)
class _Truth:
    """A batch of ground truth, and what is computed of it alone."""

    images: Tensor  # [B, 3, H, W]
    shares: list[float]  # of valid pixels
    activations: list[Tensor] | None  # of LPIPS, each [B, C, h, w]

    @classmethod
    def of(cls, images: Tensor, shares: list[float], lpips: Lpips | None) -> "_Truth":
        return cls(images, shares, lpips.activations_of(images) if lpips else None)

    def repeated(self, count: int) -> "_Truth":
        """A single one for `count` renders; takes no memory."""
        images = self.images.expand(count, -1, -1, -1)
        return replace(self, images=images, shares=self.shares * count)


@dataclass(frozen=True, eq=False)
class Meter:
    """Device and LPIPS for measuring. Without `lpips` its measures are None; `note` says why.

    `further` nets give measures of their own, on whole images; `left_out` says why others do not.
    With `gsplat_stats` metrics are also written in the files of gsplat's trainer.
    """

    device: str
    lpips: Lpips | None = None
    lpips_name: str = "none"
    note: str | None = None
    further: Mapping[str, Lpips] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  # why, by net
    ssim: SsimForm = "torchmetrics"
    gsplat_stats: bool = False

    @classmethod
    def build(cls, config: EvaluateConfig, weights: Path) -> "Meter":
        """Choose the device and load LPIPS from the folder of stage `weights`.

        Raises UserError when LPIPS is required and a net has no weights.
        """
        device, (first, *also) = _device(config.device), config.lpips.nets
        missing = {net: why for net in (first, *also) if (why := absence(weights, net))}
        if config.lpips.required:
            required = "evaluate.lpips.required"
            raise_all(UserError(required, why, fix=remedy(net)) for net, why in missing.items())
        loaded = {net: Lpips(weights, net, device) for net in (first, *also) if net not in missing}
        names = {net: f"{net} {fingerprint(weights, net)}" for net in loaded}
        return cls(
            device,
            loaded.pop(first, None),
            " + ".join(({first: "none"} | names).values()),
            missing.pop(first, None),
            loaded,
            missing,
            **_choices(config),
        )

    @classmethod
    def without_lpips(cls, config: EvaluateConfig, note: str) -> "Meter":
        """On the CPU and without LPIPS; `note` says why."""
        return cls("cpu", note=note, **_choices(config))

    @property
    def warnings(self) -> list[str]:
        """What is missing of LPIPS, and why."""
        empty = [f"LPIPS is empty: {self.note}"] if self.note else []
        return empty + [f"LPIPS ({net}) is left out: {why}" for net, why in self.left_out.items()]

    def require_sizes(
        self, sizes: Mapping[str, tuple[int, int]], fix: str, *, masked: bool = False
    ) -> None:
        """Raise UserError for views too small to measure; sizes are (width, height) px by name."""
        inside = masked or self.ssim == "dycheck"
        least = max(TAPS if inside else SMALLEST_PX, LPIPS_PX if self.lpips or self.further else 0)
        small = [name for name, size in sizes.items() if min(size) < least]
        if small:
            width, height = sizes[small[0]]
            others = counted(len(small) - 1, "more view")
            raise UserError(
                small[0],
                f"{width}x{height} px, and {others} of less than {least} px",
                expected=f"at least {least} px a side for the measures",
                fix=fix,
            )

    def measure(self, view: MeasuredView) -> Measures:
        """The measures of one view."""
        return self.measure_all([view])[0]

    @torch.inference_mode()
    def measure_all(self, views: Sequence[MeasuredView]) -> list[Measures]:
        """Measures of views that `batches` put into one batch."""
        truths = _batch([one.truth for one in views], self.device)
        truth = _Truth.of(truths, [one.share for one in views], self.lpips)
        given = _batch([one.filled(one.given) for one in views], self.device)
        columns, aligned = _values(truth, given, self), None
        if views[0].aligned is not None:
            aligned = _batch([one.filled(one.aligned) for one in views], self.device)
            values = _values(truth, aligned, self)
            columns |= {f"{name}_aligned": value for name, value in values.items()}
        columns |= _further_values(truth, given, aligned, self)
        columns[COLOR_CORRECTED] = _decibels(cc_psnr(truths, given, _valid(views, self.device)))
        # An empty mask has no measures.
        if views[0].mask is not None and views[0].mask.any():
            masks = torch.from_numpy(np.stack([one.mask for one in views]))[:, None]
            columns |= _masked_values(truths, given, masks.to(self.device), self.lpips)
        rows = []
        for nth, one in enumerate(views):
            this = slice(nth, nth + 1)
            crop = _crop_of(one, truths[this], self.lpips)
            row = {"timestamp": one.timestamp, "camera": one.camera} | dict.fromkeys(MEASURED)
            row |= {name: values[nth] for name, values in columns.items()}
            row |= {
                name: values[0]
                for name, values in _cropped_values(one, crop, given[this], self).items()
            }
            rows.append(row)
        return rows

    @torch.inference_mode()
    def measure_others(self, view: MeasuredView, images: Iterable[Image]) -> list[Measures]:
        """MEASURES of other renders [H, W, 3] of a view, and CROPPED, None without a crop.

        LPIPS passes over its ground truth once.
        """
        image = _batch([view.truth], self.device)
        truth = _Truth.of(image, [view.share], self.lpips)
        crop = _crop_of(view, image, self.lpips)
        rows: list[Measures] = []
        for batch in self.batches(replace(view, given=image) for image in images):
            given = _batch([one.filled(one.given) for one in batch], self.device)
            columns = _values(truth.repeated(len(batch)), given, self)
            columns |= _cropped_values(view, crop, given, self)
            rows += [
                dict.fromkeys(CROPPED) | {name: values[nth] for name, values in columns.items()}
                for nth in range(len(batch))
            ]
        return rows

    def batches(self, views: Iterable[MeasuredView]) -> Iterator[list[MeasuredView]]:
        """Views in batches: of one on the CPU, as large as fits on a GPU."""
        batch: list[MeasuredView] = []
        for one in views:
            if batch and (_kind(one) != _kind(batch[0]) or self._full(batch)):
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def _full(self, batch: Sequence[MeasuredView]) -> bool:
        pixels = batch[0].truth.shape[0] * batch[0].truth.shape[1]
        return self.device == "cpu" or (len(batch) + 1) * pixels > _BATCH_PX


def evaluate(
    views: Iterable[MeasuredView],
    meter: Meter,
    color: NDArray[np.float64],
    masks: str,
    *,
    name: str,
) -> tuple[list[Measures], Measures]:
    """Measures of each view, and of their scene; `name` is what a warning calls them.

    Those of the scene are means over the views that have the measure, and `mean_color_psnr`: the
    PSNR of images filled with `color` [3].
    """
    rows, flat, digests, sizes, flicker = [], [], {}, set(), Flicker()
    for batch in meter.batches(views):
        rows += meter.measure_all(batch)
        for one in batch:
            flicker.add(one.camera, one.truth, one.given, one.valid)
            pixels = one.truth if one.valid is None else one.truth[one.valid]
            flat.append(_flat_psnr(pixels, color))
            digests[f"{one.timestamp}/{one.camera}"] = one.truth_sha256
            sizes.add(f"{one.truth.shape[1]}x{one.truth.shape[0]}")
    means = means_of(rows, (*MEASURED, *further_in(rows)))
    means[FLICKER] = flicker.value()
    means["mean_color_psnr"] = _mean(flat)
    means["views"] = len(rows)
    size = "+".join(sorted(sizes))
    means["protocol"] = protocol(digests, size, meter.lpips_name, masks, meter.ssim)
    means["lpips_note"] = meter.note
    means |= {f"lpips_{net}_note": why for net, why in meter.left_out.items()}
    if warning := floor_warning(name, means):
        _LOGGER.warning(warning)
    return rows, means


def means_of(rows: Sequence[Measures], names: Sequence[str]) -> Measures:
    """Means over the views that have the measure, to six decimals; None where none has it."""
    return {name: _mean([row[name] for row in rows if row[name] is not None]) for name in names}


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """COLUMNS, and those of the further LPIPS nets that the rows of views have."""
    return [*COLUMNS, *further_in(rows)]


def summary(means: Mapping[str, Any]) -> str:
    """A scene's means on one line."""
    lpips = "none" if means["lpips"] is None else f"{means['lpips']:.4f}"
    return (
        f"{counted(means['views'], 'view')}, PSNR {means['psnr']:.2f} dB, "
        f"SSIM {means['ssim']:.4f}, LPIPS {lpips} "
        f"(an image of the mean colour: {means['mean_color_psnr']:.2f} dB)"
    )


def mean_color(images: Iterable[Image]) -> NDArray[np.float64]:
    """Mean colour [3] of all pixels of all images."""
    sums, pixels = np.zeros(3), 0
    for image in images:
        sums += image.sum(axis=(0, 1), dtype=np.float64)
        pixels += image.shape[0] * image.shape[1]
    assert pixels, "no images"
    return sums / pixels


def protocol(
    views: Mapping[str, str], size: str, lpips: str, masks: str, ssim: SsimForm = "torchmetrics"
) -> str:
    """What measures must share to compare; `views` maps each view to its ground truth's hash.

    An SSIM that is not torchmetrics' is named.

    >>> protocol({"000021/28": "ab", "000021/64": "cd"}, "192x256", "alex 12345678", "ignore")
    '192x256, 2 views c6a0ace5, lpips alex 12345678, masks ignore'
    >>> protocol({}, "56x48", "none", "lens", "dycheck")
    '56x48, 0 views e3b0c442, lpips none, masks lens, ssim dycheck'
    """
    digest = text_hash(*(part for view in sorted(views.items()) for part in view))[:8]
    other = "" if ssim == "torchmetrics" else f", ssim {ssim}"
    return f"{size}, {len(views)} views {digest}, lpips {lpips}, masks {masks}{other}"


def _device(requested: str) -> str:
    """`cpu` or `cuda`. Raises UserError when cuda is requested and there is none."""
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise UserError("evaluate.device", "cuda, but torch sees no GPU", fix="set it to cpu")
    if requested == "cpu" or not available:
        return "cpu"
    # TF32 convolutions would move LPIPS in its third digit.
    torch.backends.cudnn.allow_tf32 = False
    return "cuda"


def _choices(config: EvaluateConfig) -> dict[str, Any]:
    return {"ssim": config.ssim, "gsplat_stats": config.runtime.gsplat_stats}


def _kind(one: MeasuredView) -> tuple[Any, ...]:
    """What views of one batch must share."""
    has_mask = one.mask is not None and bool(one.mask.any())
    return one.truth.shape, one.aligned is not None, has_mask


def _values(truth: _Truth, b: Tensor, meter: Meter) -> dict[str, list[float | None]]:
    """Measures of images that are equal except in the shares of valid pixels."""
    a, similarity = truth.images, _SSIM[meter.ssim](truth.images, b)
    distance = None
    if meter.lpips and truth.activations is not None:
        distance = meter.lpips.between(truth.activations, meter.lpips.activations_of(b))
    if min(truth.shares) == 1:
        return {
            "psnr": _decibels(psnr(a, b)),
            "ssim": _rounded(similarity),
            "lpips": [None] * len(a) if distance is None else _rounded(distance),
        }
    of = torch.tensor(truth.shares, dtype=torch.float64, device=a.device)
    return {
        "psnr": _decibels(psnr(a, b) + 10 * torch.log10(of)),
        "ssim": _rounded(1 - (1 - similarity) / of),
        "lpips": [None] * len(a) if distance is None else _rounded(distance / of),
    }


def _further_values(
    truth: _Truth, given: Tensor, aligned: Tensor | None, meter: Meter
) -> dict[str, list[float | None]]:
    """LPIPS by the further nets, one after the other."""
    of = torch.tensor(truth.shares, dtype=torch.float64, device=given.device)
    values: dict[str, list[float | None]] = {}
    for net, lpips in meter.further.items():
        known = lpips.activations_of(truth.images)
        for form, images in (("", given), ("_aligned", aligned)):
            values[f"lpips_{net}{form}"] = [None] * len(given)
            if images is not None:
                distance = lpips.between(known, lpips.activations_of(images))
                values[f"lpips_{net}{form}"] = _rounded(distance / of)
    return values


def _masked_values(
    a: Tensor, b: Tensor, mask: Tensor, lpips: Lpips | None
) -> dict[str, list[float | None]]:
    return {
        "mpsnr": _decibels(mpsnr(a, b, mask)),
        "mssim": _rounded(mssim(a, b, mask)),
        "mlpips": _rounded(mlpips(a, b, mask, lpips)) if lpips else [None] * len(a),
    }


def _crop_of(one: MeasuredView, image: Tensor, lpips: Lpips | None) -> _Truth | None:
    """The crop of a view's ground truth [1, 3, H, W]; None without one."""
    if one.crop is None:
        return None
    share = 1.0 if one.valid is None else max(float(one.valid[one.crop].mean()), 1e-6)
    return _Truth.of(image[..., *one.crop], [share], lpips)


def _cropped_values(
    one: MeasuredView, crop: _Truth | None, b: Tensor, meter: Meter
) -> dict[str, list[float | None]]:
    """The measures of a view's crop, of renders [B, 3, H, W] of it; empty without one."""
    if one.crop is None or crop is None:
        return {}
    values = _values(crop.repeated(len(b)), b[..., *one.crop], meter)
    return {f"crop_{name}": of_name for name, of_name in values.items()}


def _valid(views: Sequence[MeasuredView], device: str) -> Tensor | None:
    """Masks [B, 1, H, W] of valid pixels; None for all."""
    if all(one.valid is None for one in views):
        return None
    every = [
        np.ones(one.truth.shape[:2], bool) if one.valid is None else one.valid for one in views
    ]
    return torch.from_numpy(np.stack(every))[:, None].to(device)


def _decibels(values: Tensor) -> list[float]:
    return [min(value, HIGHEST_PSNR_DB) for value in _rounded(values)]


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _batch(images: Sequence[Image], device: str) -> Tensor:
    """[B, 3, H, W] of images [H, W, 3]."""
    batch = [torch.from_numpy(image).permute(2, 0, 1)[None].to(device) for image in images]
    return batch[0] if len(batch) == 1 else torch.cat(batch)


def _flat_psnr(truth: Image, color: NDArray[np.float64]) -> float:
    """PSNR in dB of an image of one colour, as a lower reference for a scene."""
    error = np.square(truth - color).mean()
    return float(-10 * np.log10(error)) if error > 0 else HIGHEST_PSNR_DB


def _mean(values: Sequence[float]) -> float | None:
    """Mean to six decimals; None of nothing."""
    return round(float(np.mean(values)), 6) if values else None
