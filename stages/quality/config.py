"""Typed models of `weights:`, `novel_views:`, `evaluate:` and `compare:` in params.yaml."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.run.errors import UserError
from stages.run.settings.alignment import Alignment
from stages.run.settings.params import Section, runtime_field
from stages.run.settings.ranges import Count, Seed, Workers

# Backbones with calibrated LPIPS heads.
Net = Literal["alex", "vgg", "squeeze"]
# Which windows SSIM averages: quality/metrics/ssim.py.
SsimForm = Literal["torchmetrics", "dycheck"]


class WeightsRuntime(Section):
    """Timeout of a download."""

    timeout_s: float = Field(default=10.0, gt=0)


class WeightsConfig(Section):
    """Sources of the LPIPS backbones: a path, a package, torchvision's cache or its download."""

    runtime: WeightsRuntime = runtime_field(WeightsRuntime())
    nets: tuple[Net, ...] = ("alex",)
    path: str = ""
    download: bool = True


class NovelViewsRuntime(Section):
    """How many timestamps are rendered at once."""

    workers: Workers = 2


class NovelViewsConfig(Alignment):
    """How the target cameras are rendered."""

    runtime: NovelViewsRuntime = runtime_field(NovelViewsRuntime())
    backend: Literal["auto", "cpu", "cuda"] = "auto"
    align: bool = True


class LpipsConfig(Section):
    """The LPIPS backbones, and whether a run without their weights is an error."""

    net: Net = "alex"
    also: tuple[Net, ...] = ()  # measured beside `net`
    required: bool = False

    @field_validator("also")
    @classmethod
    def _once(cls, also: tuple[Net, ...], info: ValidationInfo) -> tuple[Net, ...]:
        if len({info.data.get("net"), *also}) <= len(also):
            raise ValueError("each net once, without evaluate.lpips.net")
        return also

    @property
    def nets(self) -> tuple[Net, ...]:
        """All nets, the first of which is that of the measure `lpips`."""
        return (self.net, *self.also)


class EvaluateRuntime(Section):
    """Files that are written beside the metrics; no metric depends on them."""

    gsplat_stats: bool = False


class EvaluateConfig(Section):
    """How novel views are measured against ground truth."""

    runtime: EvaluateRuntime = runtime_field(EvaluateRuntime())
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ssim: SsimForm = "torchmetrics"
    masks: Literal["ignore", "auto", "people"] = "ignore"
    lpips: LpipsConfig = LpipsConfig()


class CompareConfig(Section):
    """How methods are compared with each other."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    bootstrap_draws: int = Field(default=2000, ge=100, le=1_000_000)
    block_length: Count = 0
    seed: Seed = 0


SECTIONS = {
    "weights": WeightsConfig,
    "novel_views": NovelViewsConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
}


def net_errors(
    values: Mapping[str, Any], where: Callable[[tuple[Any, ...]], str]
) -> Iterator[UserError]:
    """Errors of nets that `evaluate` measures by and `weights` does not fetch.

    Args:
        values: The sections that are valid.
        where: Gives the place of a key for messages.
    """
    if not {"weights", "evaluate"} <= values.keys():
        return
    fetched, lpips = values["weights"].nets, values["evaluate"].lpips
    if not fetched and not lpips.required:  # a run without LPIPS
        return
    for net in lpips.nets:
        if net not in fetched:
            yield UserError(
                where(("evaluate", "lpips", "net" if net == lpips.net else "also")),
                net,
                expected=f"one of weights.nets: {', '.join(fetched) or 'none'}",
                fix=f"add {net} to weights.nets, then run `python -m stages.check`",
            )
