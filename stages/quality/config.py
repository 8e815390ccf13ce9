"""Typed models of `weights:`, `novel_views:`, `evaluate:` and `compare:` in params.yaml."""

from typing import Literal

from pydantic import Field

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
    """Sources of the LPIPS backbones: a path, torchvision's cache, or its download."""

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
    """The LPIPS backbone, and whether a run without its weights is an error."""

    net: Net = "alex"
    required: bool = False


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
