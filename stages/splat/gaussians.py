"""A set of Gaussians in its normalised training frame, and its file.

means [N, 3], quats [N, 4] wxyz of any length, log_scales [N, 3], opacity_logits [N], sh0 [N, 1, 3]
and shN [N, (d + 1)^2 - 1, 3]. `world_from_norm` leads to the frame of the cameras.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.run.errors import UserError
from stages.run.files import parse_json, shaped, whole_file
from stages.scenes.frames import Sim3
from stages.splat import color

FORMAT = "splatfix gaussians 1"
_HEADER = "gaussians"
COLOR = "color"  # of the metadata: a `ColorTable`
_AGAIN = "run the training again, or copy the file again"
_HARMONICS = (1, 4, 9, 16)  # by degree
TENSORS = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Trained Gaussians."""

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    sh0: Tensor
    shN: Tensor  # noqa: N815
    world_from_norm: Sim3
    antialiased: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the stored harmonics."""
        return int((self.shN.shape[1] + 1) ** 0.5) - 1

    @property
    def colors(self) -> color.ColorTable | None:
        """Maps of the training cameras' colours; None where none were learnt."""
        return self.metadata.get(COLOR)

    def to(self, device: str) -> "Gaussians":
        """The same Gaussians on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def moved(self, frame: Sim3) -> "Gaussians":
        """The same Gaussians with their world frame, and its cameras, moved by `frame`."""
        metadata = dict(self.metadata)
        if self.colors is not None:
            metadata[COLOR] = color.moved(self.colors, frame)
        return replace(self, world_from_norm=frame.compose(self.world_from_norm), metadata=metadata)

    def save(self, path: Path) -> None:
        """Write safetensors with the frame, the rasteriser's mode and the metadata."""
        facts = {
            "format": FORMAT,
            "world_from_norm": self.world_from_norm.to_dict(),
            "antialiased": self.antialiased,
            "metadata": dict(self.metadata),
        }
        # One entry, because safetensors writes several in an order that changes from run to run.
        header = {_HEADER: json.dumps(facts, sort_keys=True)}
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in TENSORS}
        with whole_file(path) as scratch:
            save_file(tensors, scratch, metadata=header)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Gaussians":
        """Read a file that `save` wrote. Raises UserError for a missing or foreign file."""
        if not path.is_file():
            raise UserError(path, "no such file", fix="run `dvc repro train` for this scene")
        try:
            with safe_open(path, framework="pt", device=device) as file:
                facts = parse_json((file.metadata() or {}).get(_HEADER, "{}"))
                if not isinstance(facts, dict) or facts.get("format") != FORMAT:
                    raise UserError(path, "not Gaussians of this project", expected=FORMAT)
                tensors = {name: file.get_tensor(name) for name in TENSORS}
        except (SafetensorError, ValueError, OSError) as error:
            raise UserError(path, f"not a whole safetensors file ({error})", fix=_AGAIN) from error
        with shaped(path, f"{', '.join(TENSORS)} of N finite Gaussians", _AGAIN):
            check_tensors(tensors)
            if facts["metadata"].get(COLOR) is not None:
                color.check(facts["metadata"][COLOR])
            return cls(
                **tensors,
                world_from_norm=Sim3.from_dict(facts["world_from_norm"]),
                antialiased=bool(facts["antialiased"]),
                metadata=dict(facts["metadata"]),
            )


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for tensors that do not make Gaussians."""
    check_shapes(tensors)
    for name, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def check_shapes(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for tensors whose shapes do not make Gaussians."""
    count = len(tensors["means"]) if tensors["means"].ndim else -1
    shapes = {name: tuple(value.shape[1:]) for name, value in tensors.items()}
    rest = shapes["shN"][:1] or (0,)
    expected = {
        "means": (3,),
        "quats": (4,),
        "log_scales": (3,),
        "opacity_logits": (),
        "sh0": (1, 3),
        "shN": (*rest, 3),
    }
    for name, value in tensors.items():
        if value.ndim == 0 or len(value) != count or shapes[name] != expected[name]:
            raise ValueError(f"{name} of shape {tuple(value.shape)} for {count} Gaussians")
    if rest[0] + 1 not in _HARMONICS:
        raise ValueError(f"shN of shape {tuple(tensors['shN'].shape)}, not of SH degree 0 to 3")


def none_finite(count: int) -> str:
    """What is said of a file with `count` Gaussians of which none is finite."""
    return f"none of {count} Gaussians is finite" if count else "no Gaussians in it"


def colors(gaussians: Gaussians) -> Tensor:
    """All harmonics [N, (d + 1)^2, 3]."""
    return torch.cat([gaussians.sh0, gaussians.shN], dim=1)
