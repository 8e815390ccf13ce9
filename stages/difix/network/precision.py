"""Where a fixer runs and in which precision, each with the reason, to be printed once."""

from typing import Literal

import torch

from stages.run.errors import UserError

Name = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(requested: str, where: str) -> tuple[torch.device, str]:
    """The device, and why. Raises UserError when cuda is asked for and there is none."""
    found = torch.cuda.is_available()
    if requested == "cuda" and not found:
        raise UserError(where, "cuda, but torch sees no GPU", fix="set it to auto or cpu")
    if requested == "cpu" or not found:
        return torch.device("cpu"), "as asked" if requested == "cpu" else "torch sees no GPU"
    return torch.device("cuda"), torch.cuda.get_device_name()


def choose_precision(requested: str, device: torch.device, where: str) -> tuple[Name, str]:
    """The precision, and why. Raises UserError for fp16 on a CPU, which cannot compute in it."""
    on_gpu = device.type == "cuda"
    if requested == "fp16" and not on_gpu:
        raise UserError(where, "fp16 on a CPU", expected="auto, fp32 or bf16 there")
    if requested != "auto":
        assert requested in DTYPES, f"no precision {requested!r}"
        return requested, "as asked"  # type: ignore[return-value]
    if not on_gpu:
        return "fp32", "bf16 is no faster on most CPUs"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "half the memory and no overflow; this GPU computes it directly"
    return "fp16", "this GPU has no bf16"


def choose_execution(
    requested: str, device: torch.device, draws: bool, where: str
) -> Literal["eager", "graph"]:
    """How steps are computed; `draws`: a step draws its latents.

    Raises UserError for a graph where there can be none.
    """
    if requested == "auto":
        return "graph" if device.type == "cuda" and not draws else "eager"
    if requested == "eager":
        return "eager"
    if device.type != "cuda":
        raise UserError(where, "graph, but only a GPU records graphs", fix="set it to eager")
    if draws:
        raise UserError(
            where, "graph, which would draw the same latents again and again",
            fix="set it to eager, or `latent` to mean",
        )  # fmt: skip
    return "graph"
