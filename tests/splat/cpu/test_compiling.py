"""The exponential of the inner loops, and where machine code is kept."""

import numpy as np
from numba import njit

from stages.splat.cpu import compiling, composite, window


def test_exponential() -> None:
    evaluate = njit(lambda y: window.exp_minus_8(y))
    sigma = np.linspace(-0.2, np.log(255), 2000).astype(np.float32)
    values = np.array([evaluate(s / np.float32(8)) for s in sigma], float)
    np.testing.assert_allclose(values, np.exp(-sigma.astype(float)), rtol=3e-6)


def test_machine_code_is_kept_by_the_text_of_all_sources() -> None:
    """A constant of bins.py is compiled into composite.py's kernels."""
    kept = composite.composite_forward._cache.cache_path
    assert "kernels-" in kept
    assert kept.startswith(compiling.numba.config.CACHE_DIR)
