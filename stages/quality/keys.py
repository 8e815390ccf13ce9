"""Names of the measures in all files below metrics/.

`..._aligned` are of renders from poses that were aligned to the images. `m...` are over the pixels
of a mask, `crop_...` over the box around the people, `cc_psnr` is after a colour correction.
"""

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


def repeat_name(scene: str, seed: int) -> str:
    """The name of a scene's repeat in data/novel_views, metrics/scenes and metrics/views.

    >>> repeat_name("hi4d_pair15_fight", 1)
    'hi4d_pair15_fight.seed1'
    """
    return f"{scene}.seed{seed}"
