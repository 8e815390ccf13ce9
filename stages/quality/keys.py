"""Names of the measures in all files below metrics/.

`..._aligned` are of renders from poses that were aligned to the images. `m...` are over the pixels
of a mask, `crop_...` over the box around the people, `cc_psnr` is after a colour correction.
`lpips` is by the net `evaluate.lpips.net`, `lpips_<net>` by those of `evaluate.lpips.also`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from stages.quality.config import Net

MEASURES = ("psnr", "ssim", "lpips")
ALIGNED = tuple(f"{name}_aligned" for name in MEASURES)
MASKED = ("mpsnr", "mssim", "mlpips")
CROPPED = tuple(f"crop_{name}" for name in MEASURES)
# As they are printed.
TITLES = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
TITLES |= {f"crop_{name}": f"{title} of people" for name, title in TITLES.items()}
UNITS = {"psnr": "dB", "crop_psnr": "dB"}
FORMATS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f"}
FORMATS |= {f"crop_{name}": form for name, form in FORMATS.items()}
COLOR_CORRECTED = "cc_psnr"
MEASURED = (*MEASURES, *ALIGNED, COLOR_CORRECTED, *MASKED, *CROPPED)
# LPIPS by further nets: keys that are absent, not None, where a net is not asked for.
FURTHER = tuple(f"lpips_{net}" for net in get_args(Net))
FURTHER_ALIGNED = tuple(f"{name}_aligned" for name in FURTHER)
TITLES |= {f"lpips_{net}": f"LPIPS ({net})" for net in get_args(Net)}
FORMATS |= dict.fromkeys(FURTHER, FORMATS["lpips"])
# Of a scene, not of its views.
FLICKER = "flicker"
# Measures with a mean over scenes.
AVERAGED = (*MEASURED, FLICKER, "mean_color_psnr")
# The mean of the plain splat's renders over all seeds, beside the methods of the study.
NONE_MEAN = "none-mean"


def titled(name: str, form: str = "{} {}") -> str:
    """A measure's title with its unit, if any.

    >>> titled("psnr"), titled("crop_psnr", "{} ({})"), titled("ssim")
    ('PSNR dB', 'PSNR of people (dB)', 'SSIM')
    """
    return form.format(TITLES[name], UNITS[name]) if name in UNITS else TITLES[name]


def quantity(name: str, value: float, sign: str = "") -> str:
    """A value of a measure with its unit, if any; `sign` is `+` for differences.

    >>> quantity("psnr", 0.127), quantity("lpips", 0.004, "+")
    ('0.13 dB', '+0.0040')
    """
    return f"{value:{sign}{FORMATS[name]}}" + (f" {UNITS[name]}" if name in UNITS else "")


def better(name: str) -> int:
    """+1 if higher is better, -1 if lower is.

    >>> better("psnr_aligned"), better("mlpips")
    (1, -1)
    """
    return -1 if "lpips" in name or name == FLICKER else 1


def further_in(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The measures of further LPIPS nets that every row has.

    >>> further_in([{"lpips": 0.2, "lpips_vgg": 0.3}, {"lpips": 0.2, "lpips_vgg": None}])
    ('lpips_vgg',)
    >>> further_in([{"lpips_vgg": 0.3}, {"lpips": 0.2}]), further_in([])
    ((), ())
    """
    every = list(rows)
    names = (*FURTHER, *FURTHER_ALIGNED)
    return tuple(name for name in names if every and all(name in row for row in every))


def repeat_name(scene: str, seed: int) -> str:
    """The name of a scene's repeat in data/novel_views, metrics/scenes and metrics/views.

    >>> repeat_name("hi4d_pair15_fight", 1)
    'hi4d_pair15_fight.seed1'
    """
    return f"{scene}.seed{seed}"
