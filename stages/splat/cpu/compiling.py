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
STOP_TRANSMITTANCE = f32(1e-4)  # the Gaussian that would go below it is not drawn, nor any after it

# nogil lets a caller run several images at once; cache keeps the machine code on the disk.
_KEPT = {"cache": True, "error_model": "numpy", "nogil": True}
_REORDERED = {"nsz", "arcp", "contract", "afn", "reassoc"}
_FINITE = {*_REORDERED, "nnan", "ninf"}

# Loops over pixels: NaN and infinity do not get there, and only so are the inner loops vectorised.
COMPILE = {**_KEPT, "fastmath": _FINITE}
# Loops over Gaussians: a NaN parameter must fail every comparison, and so leave the picture.
COMPILE_STRICT = {**_KEPT, "fastmath": _REORDERED}
# Parts of kernels. They are compiled into them and need no cache of their own.
INLINE = {"error_model": "numpy", "forceinline": True, "fastmath": _FINITE}
INLINE_STRICT = {**INLINE, "fastmath": _REORDERED}


def _keep_apart_by_source() -> None:
    """Let numba keep machine code in a folder named by the text of every kernel's source.

    numba recompiles a function when its own file changes, but not when a function or a constant
    that it takes from another file does.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    root = numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__"
    numba.config.CACHE_DIR = str(Path(root) / f"kernels-{digest.hexdigest()[:12]}")


_keep_apart_by_source()
