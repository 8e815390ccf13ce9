"""Results worse than an image of the mean colour: they show nothing of their scene."""

from collections.abc import Mapping
from typing import Any


def below_mean_color(means: Mapping[str, Any]) -> bool:
    """Whether a PSNR is below that of images filled with the training images' mean colour.

    >>> below_mean_color({"psnr": 9.0, "mean_color_psnr": 12.0})
    True
    >>> below_mean_color({"psnr": None, "mean_color_psnr": 12.0})
    False
    """
    measured, flat = means.get("psnr"), means.get("mean_color_psnr")
    return measured is not None and flat is not None and measured < flat


def floor_warning(name: str, means: Mapping[str, Any]) -> str:
    """The warning of a result below the mean colour; empty of any other.

    >>> floor_warning("room", {"psnr": 12.5, "mean_color_psnr": 12.0})
    ''
    """
    if not below_mean_color(means):
        return ""
    return (
        f"{name}: PSNR {means['psnr']:.2f} dB is below that of an image of the mean colour, "
        f"{means['mean_color_psnr']:.2f} dB: the poses may be wrong or of another frame"
    )


def floor_warnings(means: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The warnings of results by name."""
    return [text for name, of in means.items() if (text := floor_warning(name, of))]


def verdict_warning(scenes: str) -> str:
    """What it means for a comparison that the plain Gaussians of `scenes` are below the floor."""
    return (
        f"The plain Gaussians of {scenes} are worse than an image of the mean colour: differences "
        "between methods mean nothing there. Look at these scenes' poses first "
        "(`metrics/calibrate/<scene>.json`)"
    )
