"""How the CPU kernels are compiled, and the constants they share with gsplat's CUDA kernels."""

import hashlib
from pathlib import Path

import numba
import numpy as np

f32 = np.float32
Array = np.ndarray
ZERO, HALF, ONE, TWO = f32(0.0), f32(0.5), f32(1.0), f32(2.0)

MIN_ALPHA = f32(1 / 255)  # a fainter contribution is skipped
MAX_ALPHA = f32(0.999)
STOP_TRANSMITTANCE = f32(1e-4)  # a Gaussian that would go below it ends the pixel, unrendered

# nogil lets a caller run several images at once; cache keeps the machine code on the disk.
_CACHED = {"cache": True, "error_model": "numpy", "nogil": True}
_REORDERED = {"nsz", "arcp", "contract", "afn", "reassoc"}
_FINITE = {*_REORDERED, "nnan", "ninf"}

# Loops over pixels: NaN and infinity do not reach them, and inner loops vectorise only then.
COMPILE = {**_CACHED, "fastmath": _FINITE}
# Loops over Gaussians: a NaN parameter must fail every comparison, which removes the Gaussian.
COMPILE_STRICT = {**_CACHED, "fastmath": _REORDERED}
# Parts of kernels, which are compiled into them and need no cache of their own.
INLINE = {"error_model": "numpy", "forceinline": True, "fastmath": _FINITE}
INLINE_STRICT = {**INLINE, "fastmath": _REORDERED}


def _cache_by_source() -> None:
    """Have numba cache machine code in a folder named by a digest of all kernels' source.

    numba recompiles a function when its own file changes, but not when a function or a constant
    that it imports from another file does.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    root = numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__"
    numba.config.CACHE_DIR = str(Path(root) / f"kernels-{digest.hexdigest()[:12]}")


_cache_by_source()
