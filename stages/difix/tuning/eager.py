"""Optimisation steps kernel by kernel, on any device and in any precision.

Weights, gradients and optimiser are float32; lower precision is used in the forward pass alone
(autocast), since gradients in fp16 cannot be unscaled.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stages.difix.network.model import Fixer
from stages.difix.tuning.losses import FixerLoss, Terms


class EagerStep:
    """Gradients by autograd, reduced over processes by accelerate."""

    def __init__(
        self,
        accelerator: Any,
        fixer: Fixer,
        parameters: dict[str, nn.Parameter],
        *,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        accumulation: int,
    ):
        self.accelerator, self.parameters, self.fixer = accelerator, parameters, fixer
        self.max_norm, self.accumulation = max_norm, accumulation
        adam = torch.optim.AdamW(
            list(parameters.values()),
            betas=betas,
            weight_decay=weight_decay,
            fused=accelerator.device.type == "cuda",
        )
        self.model, self.optimizer = accelerator.prepare(fixer, adam)

    @property
    def may_overflow(self) -> bool:
        """Whether steps with overflowing gradients are skipped."""
        return self.accelerator.scaler is not None

    def gradients(
        self,
        loss: FixerLoss,
        views: Tensor,
        target: Tensor,
        step: int,
        *,
        last: bool,
        generator: torch.Generator | None,
    ) -> Terms:
        """Add a micro-batch's gradients to those of its step.

        Args:
            loss: of the step.
            views: input of the fixer, [B, V, 3, H, W].
            target: ground truth, [B, 3, H, W].
            step: number of the optimisation step.
            last: whether it is the last micro-batch of the step.
            generator: of sampled latents; None for the posterior's mean.
        """
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            with self.fixer.decoding_references(loss.config.views == "all"):
                output = self.model(views, generator=generator)
            if loss.config.views == "all":
                # A reference's own target is itself.
                target = torch.cat([target[:, None], views[:, 1:]], dim=1).flatten(0, 1)
            terms = loss(output, target, step)
            self.accelerator.backward(terms.loss / self.accumulation)
        return terms

    def clip(self) -> Tensor:
        """Clip the gradients and return their norm before."""
        parameters = list(self.parameters.values())
        if self.max_norm > 0:
            return self.accelerator.clip_grad_norm_(parameters, self.max_norm)
        # Off: a bound of 0 would scale every gradient to 0.
        self.accelerator.unscale_gradients()
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def learn(self, lr: float) -> tuple[Tensor, bool]:
        """Update the weights; the gradients' norm, and whether the update was not skipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm, not self.optimizer.step_was_skipped

    def refresh(self) -> None:
        """Nothing to do: the forward pass reads the weights themselves."""

    def state(self) -> dict[str, Any]:
        """Resume state besides the weights."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def release(self) -> Fixer:
        """The fixer without accelerate's wrappers, its weights float32."""
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
