"""Names of the numbers, in every file under metrics/ that holds some of them.

`_aligned` numbers are of pictures from poses that were fitted to the photographs. `m...` numbers
count the pixels of a mask alone.
"""

MEASURES = ("psnr", "ssim", "lpips")
# How people read them.
TITLES = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
UNITS = {"psnr": "dB"}
FORMATS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f"}
ALIGNED = tuple(f"{name}_aligned" for name in MEASURES)
MASKED = ("mpsnr", "mssim", "mlpips")
MEASURED = (*MEASURES, *ALIGNED, *MASKED)
# What has a mean over scenes.
AVERAGED = (*MEASURED, "mean_color_psnr")


def titled(name: str, form: str = "{} {}") -> str:
    """A measure's title with its unit, if it has one.

    >>> titled("psnr"), titled("psnr", "{} ({})"), titled("ssim")
    ('PSNR dB', 'PSNR (dB)', 'SSIM')
    """
    return form.format(TITLES[name], UNITS[name]) if name in UNITS else TITLES[name]


def better(name: str) -> int:
    """+1 where more is better, -1 where less is.

    >>> better("psnr_aligned"), better("mlpips")
    (1, -1)
    """
    return -1 if "lpips" in name else 1


def repeated(scene: str, seed: int) -> str:
    """The name that a scene's repeat goes by in data/novel_views, metrics/scenes and metrics/views.

    >>> repeated("hi4d_pair15_fight", 1)
    'hi4d_pair15_fight.seed1'
    """
    return f"{scene}.seed{seed}"
