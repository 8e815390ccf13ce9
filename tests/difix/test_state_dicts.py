"""The published names and shapes of a fixer's tensors, and the round trip."""

from collections.abc import Callable

import pytest
import torch
from fixers import perturbed, published_spec, same_weights, tiny_spec
from torch import Tensor

from stages.difix.network.model import Fixer, empty_fixer
from stages.difix.network.spec import SIZES
from stages.difix.weights.state_dicts import fixer_from_published, published_keys, published_state
from stages.run.errors import UserError
from stages.run.plurals import counted


@pytest.fixture(scope="module")
def fixer() -> Fixer:
    return perturbed(published_spec())


def test_keys_at_full_size_are_the_published_ones() -> None:
    fixer = empty_fixer(SIZES["sd-turbo"])
    state, keys = fixer.state_dict(), published_keys(fixer)
    shapes = {theirs: tuple(state[ours].shape) for ours, theirs in keys.items()}
    assert len(shapes) == len(keys), "two tensors of one name"
    unet = {key for part, key in shapes if part == "unet"}
    assert len(unet) == 686
    assert shapes["unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"] == (
        320,
        320,
    )
    assert shapes["unet", "conv_in.weight"] == (320, 4, 3, 3)
    assert shapes["vae", "decoder.conv_in.base_layer.weight"] == (512, 4, 3, 3)
    assert shapes["vae", "decoder.conv_in.base_layer.bias"] == (512,)
    assert shapes["vae", "decoder.conv_in.lora_A.vae_skip.weight"] == (4, 4, 3, 3)
    assert shapes["vae", "decoder.conv_in.lora_B.vae_skip.weight"] == (512, 4, 1, 1)
    assert shapes["vae", "decoder.skip_conv_4.base_layer.weight"] == (256, 128, 1, 1)
    assert shapes["vae", "decoder.skip_conv_4.lora_A.vae_skip.weight"] == (4, 128, 1, 1)
    assert shapes["vae", "decoder.mid_block.attentions.0.to_out.0.lora_B.vae_skip.weight"] == (
        512,
        4,
    )
    assert shapes["vae", "post_quant_conv.weight"] == (4, 4, 1, 1)
    assert shapes["vae", "encoder.conv_in.weight"] == (128, 3, 3, 3)


@pytest.mark.parametrize("spec", [tiny_spec, published_spec])
def test_round_trip(spec: type) -> None:
    fixer = perturbed(spec())
    again = fixer_from_published(fixer.spec, published_state(fixer), fixer.prompt, "here")
    assert same_weights(fixer, again)


def test_old_attention_names_and_shapes_are_converted(fixer: Fixer) -> None:
    """Checkpoints of diffusers below 0.18: other names, 1x1 convolutions or matrices."""
    parts = published_state(fixer)
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in parts["vae"].items():
        if "encoder" in key and ".attentions." in key:
            for new, name in old_names.items():
                if f".{new}." in key:
                    key = key.replace(f".{new}.", f".{name}.")
                    value = value[..., None, None] if value.ndim == 2 else value
        old[key] = value
    assert old.keys() != parts["vae"].keys()
    again = fixer_from_published(fixer.spec, parts | {"vae": old}, fixer.prompt, "here")
    assert same_weights(fixer, again)


def test_vae_without_skips_gets_new_ones_near_zero(fixer: Fixer) -> None:
    parts = published_state(fixer)
    plain = {
        key.replace(".base_layer.", "."): value
        for key, value in parts["vae"].items()
        if "lora" not in key and "skip_conv" not in key
    }
    again = fixer_from_published(fixer.spec, parts | {"vae": plain}, fixer.prompt, "here")
    assert again.spec.origin == f"{fixer.spec.origin}, with new skips and LoRA"
    assert all(float(one.weight.detach().max()) <= 1e-4 for one in again.skips)
    assert again.lora is not None
    assert all(float(b.detach().abs().max()) == 0 for b in again.lora.b.values())
    assert torch.equal(again.vae.decoder.conv_in.weight, fixer.vae.decoder.conv_in.weight)


@pytest.mark.parametrize("group", ["skip_conv_2.base_layer", "skip_conv_2", "lora_A", "lora"])
def test_some_skips_or_some_lora_are_no_fixer(fixer: Fixer, group: str) -> None:
    """All or none: a gap would silently be filled with weights that were not trained."""
    parts = published_state(fixer)
    names = [key for key in parts["vae"] if group in key]
    names = names[:-1] if group == "lora" else names
    for name in names:
        del parts["vae"][name]
    with pytest.raises(UserError, match=rf"\({counted(len(names), 'tensor')}\): vae: no decoder\."):
        fixer_from_published(fixer.spec, parts, fixer.prompt, "here")


def test_vae_with_skips_but_folded_lora_gets_new_lora_alone(fixer: Fixer) -> None:
    parts = published_state(fixer)
    vae = {key: value for key, value in parts["vae"].items() if "lora" not in key}
    again = fixer_from_published(fixer.spec, parts | {"vae": vae}, fixer.prompt, "here")
    assert again.spec.origin == f"{fixer.spec.origin}, with new LoRA"
    assert torch.equal(again.skips[0].weight, fixer.skips[0].weight)
    with pytest.raises(UserError, match="vae: no decoder"):
        fixer_from_published(
            fixer.spec, parts | {"vae": vae}, fixer.prompt, "here", from_turbo=False
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.flatten(), r"conv_in\.weight is \(\d+,\), not \(8, 4, 3, 3\)"),
        (lambda one: one.permute(1, 0, 2, 3), r"conv_in\.weight is \(4, 8, 3, 3\)"),
        (lambda one: one.to(torch.int8), r"conv_in\.weight is of torch\.int8"),
        (lambda one: one.to(torch.complex64), r"conv_in\.weight is of torch\.complex64"),
    ],
)
def test_other_shape_or_type_of_equal_size_is_refused(
    fixer: Fixer, change: Callable[[Tensor], Tensor], message: str
) -> None:
    parts = published_state(fixer)
    parts["unet"]["conv_in.weight"] = change(parts["unet"]["conv_in.weight"])
    with pytest.raises(UserError, match=message):
        fixer_from_published(fixer.spec, parts, fixer.prompt, "here")


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [
        ("unet", "conv_in.weight", r"\(1 tensor\): unet: no conv_in\.weight"),
        ("vae", "encoder.conv_in.bias", r"vae: no encoder\.conv_in\.bias"),
    ],
)
def test_missing_tensor_is_named(fixer: Fixer, part: str, key: str, message: str) -> None:
    parts = published_state(fixer)
    del parts[part][key]
    with pytest.raises(UserError, match=message):
        fixer_from_published(fixer.spec, parts, fixer.prompt, "here")


def test_other_architecture_is_refused(fixer: Fixer) -> None:
    parts = published_state(fixer)
    parts["unet"]["conv_in.weight"] = torch.zeros(8, 9, 3, 3)
    parts["unet"]["add_embedding.linear_1.weight"] = torch.zeros(2)
    with pytest.raises(
        UserError,
        match=r"another architecture \(2 tensors\): .*\(8, 9, 3, 3\).*unknown add_embedding",
    ):
        fixer_from_published(fixer.spec, parts, fixer.prompt, "here")
