"""How the CPU kernels are compiled, and the constants they share with gsplat's CUDA kernels."""

import numpy as np

f32 = np.float32
Array = np.ndarray
ZERO, HALF, ONE, TWO = f32(0.0), f32(0.5), f32(1.0), f32(2.0)

MIN_ALPHA = f32(1 / 255)  # a fainter contribution is skipped
MAX_ALPHA = f32(0.999)
STOP_TRANSMITTANCE = f32(1e-4)  # the Gaussian that would go below it is not drawn, nor any after it

# nogil lets a caller run several images at once; cache keeps the machine code beside the source.
_KEPT = {"cache": True, "error_model": "numpy", "nogil": True}
_REORDERED = {"nsz", "arcp", "contract", "afn", "reassoc"}

# Loops over pixels: no NaN or infinity gets there, and only so are the inner loops vectorised.
COMPILE = {**_KEPT, "fastmath": {*_REORDERED, "nnan", "ninf"}}
# Loops over Gaussians: a NaN parameter must fail every comparison, and so leave the picture.
COMPILE_STRICT = {**_KEPT, "fastmath": _REORDERED}
# Small parts of a kernel. They are compiled into it, so they need no cache of their own.
INLINE = {"error_model": "numpy", "forceinline": True, "fastmath": _REORDERED}
