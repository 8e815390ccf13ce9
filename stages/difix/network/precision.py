"""Device, precision and execution of a fixer, with the reasons to print."""

from typing import Literal

import torch

from stages.run.errors import UserError
from stages.run.process.gpus import expect_gpu

Name = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(requested: str, where: str) -> tuple[torch.device, str]:
    """The device, and why. Raises UserError when cuda is requested and there is none."""
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise UserError(where, "cuda, but torch sees no GPU", fix="set it to auto or cpu")
    if requested == "auto" and not available:
        expect_gpu(where)
    if requested == "cpu" or not available:
        return torch.device("cpu"), "as set" if requested == "cpu" else "torch sees no GPU"
    return torch.device("cuda"), torch.cuda.get_device_name()


def choose_precision(requested: str, device: torch.device, where: str) -> tuple[Name, str]:
    """The precision, and why. Raises UserError for fp16 on a CPU, which cannot compute in it."""
    on_gpu = device.type == "cuda"
    if requested == "fp16" and not on_gpu:
        raise UserError(where, "fp16 on a CPU", expected="auto, fp32 or bf16 there")
    if requested != "auto":
        assert requested in DTYPES, f"no precision {requested!r}"
        return requested, "as set"  # type: ignore[return-value]
    if not on_gpu:
        return "fp32", "bf16 is no faster on most CPUs"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "half the memory and no overflow; this GPU computes it directly"
    return "fp16", "this GPU has no bf16"


def choose_execution(
    requested: str, device: torch.device, samples_latents: bool, where: str
) -> Literal["eager", "graph"]:
    """How steps are computed: kernel by kernel, or as a CUDA graph.

    Raises UserError for a graph without a GPU or where a step samples its latents.
    """
    if requested == "auto":
        return "graph" if device.type == "cuda" and not samples_latents else "eager"
    if requested == "eager":
        return "eager"
    if device.type != "cuda":
        raise UserError(where, "graph, but only a GPU records graphs", fix="set it to eager")
    if samples_latents:
        raise UserError(
            where,
            "graph, which would sample the same latents again and again",
            fix="set it to eager, or `latent` to mean",
        )
    return "graph"
