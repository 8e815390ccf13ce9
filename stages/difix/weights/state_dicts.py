"""Conversion between the state dict of a Fixer and those of the published checkpoints.

Published are two state dicts, `unet` and `vae`. The VAE's has skips and LoRA under peft's names:
`<layer>.base_layer.weight` beside `<layer>.lora_A.vae_skip.weight`. Without LoRA the names are
plain. Keys of a Fixer's state dict start with the part they belong to.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from stages.difix.network.model import Fixer, empty_fixer, new_tensor
from stages.difix.network.spec import Spec
from stages.difix.network.training_record import TrainingRecord
from stages.difix.network.vae import skip_name
from stages.run.errors import UserError
from stages.run.plurals import counted

ADAPTER = "vae_skip"
PROMPT_KEY = "prompt"

StateDict = Mapping[str, Tensor]
Key = tuple[str, str]  # part and key: ("vae", "decoder.conv_in.base_layer.weight")

# What DiFix adds to SD-Turbo's VAE, by the start of a Fixer's keys.
_ADDED = {"skips": "skips", "lora": "LoRA"}

# Names of attention projections in diffusers before 0.18, still found in checkpoints.
_OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def published_keys(fixer: Fixer) -> dict[str, Key]:
    """The published key of each of a fixer's tensors but the prompt."""
    adapted = set(fixer.lora.names) if fixer.lora else set()
    return {key: _published(key, adapted) for key in fixer.state_dict() if key != PROMPT_KEY}


def published_state(fixer: Fixer) -> dict[str, dict[str, Tensor]]:
    """The two state dicts of a fixer, `unet` and `vae`, on the CPU."""
    state, parts = fixer.state_dict(), {"unet": {}, "vae": {}}
    for ours, (part, theirs) in published_keys(fixer).items():
        parts[part][theirs] = state[ours].detach().float().cpu().contiguous()
    return parts


def fixer_from_published(
    spec: Spec,
    parts: Mapping[str, StateDict],
    prompt: Tensor,
    where: object,
    seed: int = 0,
    *,
    from_turbo: bool = True,
) -> Fixer:
    """A fixer with the published weights, on the CPU in float32; its training record is unknown.

    A VAE without any skips, or without any LoRA, gets new ones, and the spec's origin says so.
    Raises UserError when other tensors are missing, or any are left over or of another shape.

    Args:
        spec: the architecture.
        parts: state dicts `unet` and `vae`.
        prompt: the embedded prompt, [1, T, C].
        where: the checkpoint, for the messages.
        seed: of new skips and LoRA.
        from_turbo: whether the VAE may be Stable Diffusion's own, which has neither.
    """
    try:
        fixer = empty_fixer(spec)
    # Configs that contradict each other fail differently in each layer.
    except Exception as error:
        raise UserError(
            where,
            f"its configs describe no fixer ({type(error).__name__}: {error})",
            expected="diffusers' settings of a UNet and a VAE",
            fix="get the checkpoint again",
        ) from error
    state = {PROMPT_KEY: prompt.float()}
    left = {part: _modern(tensors) for part, tensors in parts.items()}
    generator = torch.Generator().manual_seed(seed)
    faults: list[str] = []
    absent: dict[str, Key] = {}
    for ours, (part, theirs) in published_keys(fixer).items():
        value = _take(left[part], theirs)
        shape = fixer.get_parameter(ours).shape
        if value is None:
            absent[ours] = part, theirs
        elif not value.is_floating_point():
            faults.append(f"{part}: {theirs} is of {value.dtype}")
        elif _without_ones(value.shape) != _without_ones(shape):
            faults.append(f"{part}: {theirs} is {tuple(value.shape)}, not {tuple(shape)}")
        else:
            # Reshaped, as old attention layers were 1x1 convolutions.
            state[ours] = value.float().reshape(shape)
    new = _wholly_absent(absent, fixer) if from_turbo else {}
    for ours, (part, theirs) in absent.items():
        shape = fixer.get_parameter(ours).shape
        value = new_tensor(ours, shape, spec, generator) if _group(ours) in new else None
        if value is None:
            faults.append(f"{part}: no {theirs}")
        else:
            state[ours] = value
    faults += [f"{part}: unknown {key}" for part, rest in left.items() for key in rest]
    if faults:
        raise _other_architecture(where, faults)
    fixer.load_state_dict(state, strict=True, assign=True)
    if new:
        fixer.spec = spec.changed(origin=f"{spec.origin}, with new {' and '.join(new.values())}")
    fixer.training_record = TrainingRecord(unknown=(spec.origin,))
    return fixer


def _published(key: str, adapted: set[str]) -> Key:
    part, _, name = key.partition(".")
    if part == "unet":
        return part, name
    if part == "lora":
        factor, _, layer = name.partition(".")
        return "vae", f"{layer.replace('/', '.')}.lora_{factor.upper()}.{ADAPTER}.weight"
    if part == "skips":
        index, _, leaf = name.partition(".")
        name = f"{skip_name(int(index))}.{leaf}"
    layer, _, leaf = name.rpartition(".")
    return "vae", f"{layer}.base_layer.{leaf}" if layer in adapted else name


def _group(key: str) -> str:
    return key.partition(".")[0]


def _wholly_absent(absent: Iterable[str], fixer: Fixer) -> dict[str, str]:
    """Groups of tensors that only DiFix has, with their names, of which none is there."""
    counts = Counter(map(_group, fixer.state_dict()))
    missing = Counter(map(_group, absent))
    return {one: name for one, name in _ADDED.items() if 0 < counts[one] == missing[one]}


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    """A shape without its last sides of 1, as of a matrix that is a 1x1 convolution."""
    sides = list(shape)
    while len(sides) > 1 and sides[-1] == 1:
        sides.pop()
    return tuple(sides)


def _take(tensors: dict[str, Tensor], key: str) -> Tensor | None:
    """Remove and return a tensor by its published name, or by its plain one."""
    value = tensors.pop(key, None)
    return tensors.pop(key.replace(".base_layer.", "."), None) if value is None else value


def _modern(tensors: StateDict) -> dict[str, Tensor]:
    """The tensors with the current names of attention projections."""
    renamed = {}
    for key, value in tensors.items():
        for old, name in _OLD_NAMES.items():
            key = key.replace(old, name) if ".attentions." in key else key
        renamed[key] = value
    return renamed


def _other_architecture(where: object, faults: list[str]) -> UserError:
    examples = "; ".join(faults[:3]) + ("; ..." if len(faults) > 3 else "")
    return UserError(
        where,
        f"weights of another architecture ({counted(len(faults), 'tensor')}): {examples}",
        expected="the UNet and VAE of SD-Turbo or DiFix, as their config.json describes them, "
        "with all skips and all LoRA factors, or with none as in SD-Turbo",
        fix="name another checkpoint in base.source, or repair the folder",
    )
