"""One denoising step in closed form, on Stable Diffusion's schedule.

`t` counts noising steps from 0 to 999; alpha_bar is the share of the clean latent's variance that
is left after step t. No noise is ever added: the render itself is taken for a noisy image.
"""

import math

from torch import Tensor

BETA_START, BETA_END, NOISING_STEPS = 0.00085, 0.012, 1000


def alpha_bar(t: int) -> float:
    """Product of 1 - beta over the steps up to t; the square roots of beta rise linearly.

    >>> round(alpha_bar(199), 6)
    0.755238
    """
    assert 0 <= t < NOISING_STEPS, f"noising step {t} is not in 0 to {NOISING_STEPS - 1}"
    low, high = math.sqrt(BETA_START), math.sqrt(BETA_END)
    roots = (low + (high - low) * step / (NOISING_STEPS - 1) for step in range(t + 1))
    return math.prod(1 - root * root for root in roots)


def clean_from_noisy(noisy: Tensor, noise: Tensor, t: int) -> Tensor:
    """The clean latent that, with this noise mixed in, is the noisy one (Ho et al. 2020, eq. 4).

    A DDPM step of a schedule that has t alone is nothing else.
    """
    kept = alpha_bar(t)
    return (noisy - math.sqrt(1 - kept) * noise) / math.sqrt(kept)
