"""What a difference between two methods is called: one rule for every output."""

from collections.abc import Mapping
from typing import Any

from stages.quality.keys import CROPPED, FURTHER, MEASURES, better

GAIN, LOSS = "gain", "loss"
DIFFERENCE = "difference"  # where the noise floor was not measured
BELOW = "below the noise floor"
EQUAL = "equal in every scene"
UNSURE = "the interval includes zero"
INTERPOLATED = "within the error of interpolation"
ONE_SCENE = "one scene has no interval"
NOT_SHOWN = "no difference shown"  # in short, of all that has neither of the first three names
RULE = (
    "A difference is a gain or a loss if it is at least the noise floor, its interval over scenes "
    "excludes zero and, at equal SSIM or PSNR, it exceeds the error of interpolation"
)
RULE_WITHOUT_FLOOR = (
    "The noise floor was not measured (`study.seeds` is empty), so nothing here is a gain or a "
    "loss: a difference is named if its interval over scenes excludes zero and, at equal SSIM or "
    "PSNR, it exceeds the error of interpolation"
)


def finding(
    name: str,
    difference: float,
    low: float | None,
    high: float | None,
    floor: Mapping[str, Any] | None,
    error: float | None = None,
) -> str:
    """What a mean difference over scenes is, by the rule.

    Args:
        name: The measure, or a key that ends in one or contains `lpips`.
        difference: Its mean over scenes.
        low: Lower end of the interval over scenes; None with one scene.
        high: Upper end.
        floor: `noise_floor` of metrics/delta.json; None or empty where it was not measured.
        error: Of interpolation.

    >>> finding("psnr", 0.4, 0.1, 0.7, {"psnr_least": 0.2})
    'gain'
    >>> finding("lpips", 0.04, 0.01, 0.07, {"lpips_least": 0.02})
    'loss'
    >>> finding("psnr", 0.4, 0.1, 0.7, None), finding("psnr", 0.4, None, None, None)
    ('difference', 'one scene has no interval')
    """
    measure = measure_of(name)
    least = floor.get(f"{measure}_least") if floor else None
    if least is not None and abs(difference) < least:
        return BELOW
    if low is None or high is None:
        return ONE_SCENE
    if low <= 0 <= high:
        return EQUAL if low == high else UNSURE
    if error is not None and abs(difference) <= error:
        return INTERPOLATED
    if least is None:
        return DIFFERENCE
    return GAIN if difference * better(measure) > 0 else LOSS


def measure_of(key: str) -> str:
    """The measure that a key is about; those of people have a noise floor of their own.

    >>> measure_of("full_psnr"), measure_of("lpips_at_ssim"), measure_of("ssim_aligned")
    ('psnr', 'lpips', 'ssim')
    >>> measure_of("crop_psnr"), measure_of("lpips_vgg_aligned")
    ('crop_psnr', 'lpips_vgg')
    """
    names = (*CROPPED, *FURTHER, "lpips", *MEASURES)  # `lpips_at_ssim` is of LPIPS
    return next(name for name in names if name in key)


def rule(floor: Mapping[str, Any] | None) -> str:
    """The rule in a sentence, as it applies with and without a noise floor."""
    return RULE if floor else RULE_WITHOUT_FLOOR
