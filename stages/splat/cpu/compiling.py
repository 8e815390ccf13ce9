"""How the CPU kernels are compiled, and the constants they share with gsplat's CUDA kernels."""

import numpy as np

f32 = np.float32
ZERO, HALF, ONE = f32(0.0), f32(0.5), f32(1.0)

MIN_ALPHA = f32(1 / 255)  # a fainter contribution is skipped
MAX_ALPHA = f32(0.999)
STOP_TRANSMITTANCE = f32(1e-4)  # the Gaussian that would go below it is not drawn, nor any after it

# Everything but signed infinities and NaN may be reassociated: the inner loops only vectorise so.
# nogil lets a caller run several images at once; cache keeps the machine code beside the source.
COMPILE = {
    "fastmath": {"nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc"},
    "cache": True,
    "error_model": "numpy",
    "nogil": True,
}
