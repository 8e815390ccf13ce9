"""One rasterisation for both devices: the only module that imports gsplat.

`cuda` is gsplat's kernels, `cpu` this project's; signature, conventions and `info` are gsplat's.
"""

from typing import Any

import torch
from gsplat import fully_fused_projection, rasterize_to_pixels, spherical_harmonics
from gsplat.cuda import _torch_impl as torch_impl  # its own functions without kernels
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa
from torch import Tensor

from stages.run.errors import UserError
from stages.run.process.gpus import allow_expandable_segments, expect_gpu

__all__ = [
    "DefaultStrategy",
    "MCMCStrategy",
    "choose_backend",
    "fully_fused_projection",
    "rasterization",
    "rasterize_to_pixels",
    "reset_opa",
    "spherical_harmonics",
    "torch_impl",
]


def choose_backend(requested: str, key: str = "train.backend") -> tuple[str, str]:
    """(`cpu` or `cuda`, the reason), for `auto`, `cpu` or `cuda`, the value of `key`.

    Raises UserError when cuda is requested without a GPU, in a SLURM job whose GPU torch does not
    see, and when there is a GPU whose kernels cannot be built: a silent fallback to the CPU would
    take hours instead of minutes.
    """
    if requested == "cpu":
        return "cpu", f"{key} is cpu"
    if not torch.cuda.is_available():
        if requested == "cuda":
            raise UserError(
                key,
                f"cuda, but torch {torch.__version__} sees no GPU",
                expected="a CUDA device and a torch build for it",
                fix=f"set {key}: cpu",
            )
        expect_gpu(key)
        return "cpu", "torch sees no GPU"
    allow_expandable_segments()
    _check_kernels()
    # SSIM subtracts nearly equal means: with TF32's ten bits in the blur, flat regions of a large
    # image have negative variances, and training diverges.
    torch.backends.cudnn.allow_tf32 = False
    reason = f"{key} is cuda" if requested == "cuda" else "torch sees a GPU"
    return "cuda", f"{reason}, {torch.cuda.get_device_name()}"


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz, any length
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, K, 3] SH, or [N, D] or [C, N, D] without sh_degree
    viewmats: Tensor,  # [C, 4, 4] cam_from_world
    Ks: Tensor,  # [C, 3, 3] px
    width: int,
    height: int,
    *,
    backend: str,
    **options: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Colours [C, H, W, D], alphas [C, H, W, 1] and info, as gsplat returns with packed=False.

    Args:
        means, ..., Ks: on the device of `backend`.
        width: of the images, px.
        height: of the images, px.
        backend: `cpu` or `cuda`.
        options: near_plane, far_plane, eps2d, sh_degree, backgrounds [C, D], render_mode, absgrad
            and rasterize_mode, with gsplat's meaning and defaults.
    """
    if backend == "cpu":
        # Imports numba, which rendering on a GPU does without.
        from stages.splat.cpu.rasterize import rasterization as rasterize
    else:
        from gsplat import rasterization as rasterize

        options["packed"] = False
    return rasterize(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options
    )


def _check_kernels() -> None:
    """Build or load gsplat's kernels now, so that a mismatch fails before any work is done."""
    try:
        kernels = _load_kernels()
    except Exception as error:  # torch's builder raises RuntimeError, OSError, ImportError, ...
        raise _no_kernels(f"{type(error).__name__}: {str(error).strip()[-500:]}") from error
    if kernels is None:
        raise _no_kernels("no CUDA compiler (nvcc) was found")


def _load_kernels() -> object | None:
    from gsplat.cuda._backend import _C

    return _C


def _no_kernels(what: str) -> UserError:
    return UserError(
        "gsplat",
        f"its CUDA kernels cannot be built: {what}",
        expected=f"nvcc of CUDA {torch.version.cuda}, that torch {torch.__version__} is built for",
        fix="install that CUDA toolkit and set CUDA_HOME, or set train.backend: cpu",
    )
