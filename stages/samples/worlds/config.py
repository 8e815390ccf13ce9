"""Section `base.pretrain.worlds` of params.yaml: procedural worlds, and Gaussians of them."""

from pydantic import Field

from stages.run.settings.params import Section
from stages.run.settings.ranges import MOST, WIDEST, Count, Positive, Seed


class WorldsConfig(Section):
    """What groups of worlds have, and how their Gaussians are trained."""

    seed: Seed = 0
    groups: Positive = 26
    worlds: Positive = 64
    shapes: int = Field(default=112, ge=2, le=MOST)
    textures: int = Field(default=96, ge=9, le=MOST)
    cameras: int = Field(default=12, ge=6, le=4096)
    targets: Positive = 5
    width_px: int = Field(default=192, ge=16, le=WIDEST)
    height_px: int = Field(default=256, ge=16, le=WIDEST)
    points: int = Field(default=1500, ge=4, le=MOST)
    gaussians: int = Field(default=8192, ge=16, le=MOST)
    steps: int = Field(default=450, ge=4, le=MOST)
    cycle_every: Count = 6
