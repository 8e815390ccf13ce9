"""Where the results of one scene lie, as entries hand them to viewers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stages.run.artefacts import GAUSSIANS
from stages.run.methods import DISTILL, PLAIN, Method


@dataclass(frozen=True)
class SceneFolders:
    """Folders of a scene that is prepared, calibrated and trained."""

    scene: Path
    calibrated: Path
    splats: Path
    novel_views: Mapping[str, Path]  # by method
    view_metrics: Mapping[str, Path] = field(default_factory=dict)  # TSV by method

    def gaussians(self, method: str, timestamp: str) -> Path:
        """File of the Gaussians that a method renders: distilled ones, or the plain splat's."""
        if Method.parse(method).form == DISTILL:
            return self.novel_views[method] / "gaussians" / f"{timestamp}.safetensors"
        return self.splats / timestamp / GAUSSIANS

    def with_gaussians(self) -> tuple[str, ...]:
        """Methods whose Gaussians differ: the plain splat and the distilled ones."""
        return tuple(m for m in self.novel_views if m == PLAIN or Method.parse(m).form == DISTILL)
