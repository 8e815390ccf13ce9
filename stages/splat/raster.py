"""One rasterisation for both devices: the only module that imports gsplat.

`cuda` is gsplat's kernels, `cpu` this project's; signature, conventions and `info` are gsplat's.
"""

import logging
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa
from torch import Tensor

from stages.run.errors import UserError

__all__ = ["DefaultStrategy", "MCMCStrategy", "choose_backend", "rasterization", "reset_opa"]


def choose_backend(requested: str) -> tuple[str, str]:
    """(`cpu` or `cuda`, the reason). Raises UserError when cuda is asked for and cannot work."""
    if requested == "cpu":
        return "cpu", "train.backend is cpu"
    if not torch.cuda.is_available():
        if requested == "cuda":
            raise UserError(
                "train.backend", f"cuda, but torch {torch.__version__} sees no GPU",
                expected="a CUDA device and a torch build for it", fix="set train.backend: cpu",
            )  # fmt: skip
        return "cpu", "torch sees no GPU"
    _check_kernels()
    reason = "train.backend is cuda" if requested == "cuda" else "torch sees a GPU"
    return "cuda", f"{reason}, {torch.cuda.get_device_name()}"


def rasterization(*tensors: Tensor, backend: str, **options: Any) -> tuple[Tensor, Tensor, dict]:
    """Colours [C, H, W, D], alphas [C, H, W, 1] and info, by gsplat's `rasterization`, unpacked.

    Arguments are gsplat's: means [N, 3], quats [N, 4], scales [N, 3], opacities [N], colors,
    viewmats [C, 4, 4], Ks [C, 3, 3], width, height and keywords.
    """
    if backend == "cpu":
        from stages.splat.cpu.rasterize import rasterization as on_cpu

        return on_cpu(*tensors, **options)
    from gsplat import rasterization as on_cuda

    return on_cuda(*tensors, packed=False, **options)


def _check_kernels() -> None:
    """Build or load gsplat's kernels now, so that a mismatch is told before any work is done."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:
        raise _no_kernels(repr(error)) from error
    if _C is None:
        raise _no_kernels("no CUDA compiler was found")


def _no_kernels(what: str) -> UserError:
    return UserError(
        "gsplat", f"its CUDA kernels cannot be built: {what}",
        expected=f"nvcc of CUDA {torch.version.cuda}, which torch {torch.__version__} was made for",
        fix="install that CUDA toolkit (CUDA_HOME), or set train.backend: cpu",
    )  # fmt: skip
