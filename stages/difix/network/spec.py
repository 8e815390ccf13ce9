"""A fixer apart from its weights: everything else that its output depends on.

Published checkpoints do not say whether they expect a reference; fixer.json does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stages.difix.network.attention import Mixing
from stages.run.errors import UserError
from stages.run.files import read_json, write_json
from stages.scenes.config import WARPED_CHANNELS

FILE = "fixer.json"
PROMPT = "remove degradation"
TIMESTEP = 199
LORA_RANK = 4
RGB = 3
# Keys that fixer.json has only where their value is another.
_OMITTED: dict[str, int] = {"references": 1, "warped": 0}

Config = dict[str, Any]

# The components of Stable Diffusion 2.1, which SD-Turbo shares.
SD_UNET: Config = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SD_VAE: Config = {
    "sample_size": 768,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
# Trained from scratch. A latent of four channels at an eighth of the image's size would pass on
# nothing of a reference, so it has sixteen at a quarter.
TINY_UNET: Config = {
    "sample_size": 32,
    "in_channels": 16,
    "out_channels": 16,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    # diffusers takes this for the number of heads.
    "attention_head_dim": [2, 2],
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
TINY_VAE: Config = {
    "sample_size": 128,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 24, 32],
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 8,
    "scaling_factor": 1.0,
    "mid_block_add_attention": False,
}
# References come warped into the view, as channels beside the render: what is to be matched lies in
# one place, and the finest level alone can average it.
_WARPED = 4
SMALL_UNET: Config = TINY_UNET | {
    "in_channels": 32,
    "out_channels": 32,
    "block_out_channels": [64, 128],
    "attention_head_dim": [4, 4],
}
SMALL_VAE: Config = TINY_VAE | {
    "in_channels": RGB + WARPED_CHANNELS * _WARPED,
    "block_out_channels": [48, 64, 96],
    "latent_channels": 32,
}


@dataclass(frozen=True)
class Spec:
    """Architecture and use of one fixer; `unet` and `vae` are diffusers' configs."""

    unet: Config = field(default_factory=lambda: dict(SD_UNET))
    vae: Config = field(default_factory=lambda: dict(SD_VAE))
    reference: bool = True  # was trained with one
    references: int = 1  # most images beside the render that it was trained with
    warped: int = 0  # most references warped into the view; 0: it takes images as they are
    mixing: Mixing = "mutual"  # that it was trained with
    residual: bool = False  # the decoder's output is added to the input
    lora_rank: int = LORA_RANK  # 0: no LoRA
    gamma: float = 1.0  # scale of the skips' outputs
    timestep: int = TIMESTEP
    prompt: str = PROMPT
    origin: str = "random"  # source of the weights

    @property
    def factor(self) -> int:
        """Divisor of an image's sides, px."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def grid_px(self) -> int:
        """Period of the network's grid, px: by which VAE and UNet together shrink an image."""
        return self.factor * 2 ** (len(self.unet["block_out_channels"]) - 1)

    @property
    def reference_words(self) -> str:
        """How the fixer takes references.

        >>> Spec().reference_words, SIZES["small"].reference_words
        ('mutual attention', 'up to 4 warped into the view')
        """
        if self.warped:
            return f"up to {self.warped} warped into the view"
        return f"{self.mixing} attention"

    @property
    def size(self) -> str:
        """Name of the size whose channels these are, or `other`."""
        names = (name for name, one in SIZES.items() if one.channels == self.channels)
        return next(names, "other")

    @property
    def channels(self) -> tuple[tuple[int, ...], ...]:
        """Channels of each level, of the UNet and of the VAE."""
        return tuple(tuple(one["block_out_channels"]) for one in (self.unet, self.vae))

    def changed(self, **values: Any) -> "Spec":
        """A copy with other values."""
        return replace(self, **values)


SIZES = {
    "sd-turbo": Spec(),
    "tiny": Spec(unet=TINY_UNET, vae=TINY_VAE, mixing="one_way", residual=True, lora_rank=0),
    "small": Spec(
        unet=SMALL_UNET,
        vae=SMALL_VAE,
        warped=_WARPED,
        mixing="one_way",
        residual=True,
        lora_rank=0,
    ),
}


def write_spec(folder: Path, spec: Spec) -> None:
    """Write fixer.json, without the numbers of references that are the published weights'."""
    content = asdict(spec)
    omitted = _OMITTED.items()
    write_json(
        folder / FILE, {key: one for key, one in content.items() if (key, one) not in omitted}
    )


def read_spec(folder: Path) -> Spec:
    """Read fixer.json. Raises UserError when it has other keys than a Spec."""
    return spec_from_dict(read_json(folder / FILE), folder / FILE)


def spec_from_dict(content: Mapping[str, Any], where: object) -> Spec:
    """A Spec from its dictionary. Raises UserError that names missing and unknown keys."""
    known = {one.name for one in fields(Spec)}
    wrong = sorted(known ^ {*content, *_OMITTED})
    if wrong:
        raise UserError(
            where,
            f"missing or unknown: {', '.join(wrong)}",
            expected=", ".join(sorted(known)),
            fix="write the fixer again with this version: `dvc repro base tune`",
        )
    for key, least in (("references", 1), ("warped", 0)):
        count = content.get(key, least)
        if type(count) is not int or count < least:
            raise UserError(where, f"{key}: {count!r}", expected=f"a number from {least} on")
    spec = Spec(**content)
    expected = RGB + WARPED_CHANNELS * spec.warped
    channels = spec.vae.get("in_channels", RGB)
    if channels != expected:
        raise UserError(
            where,
            f"a VAE of {channels} input channels",
            expected=f"{expected}, for warped: {spec.warped}",
        )
    return spec
