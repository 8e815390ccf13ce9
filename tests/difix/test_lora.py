"""LoRA against its definition."""

import pytest
import torch
from fixers import random_images

from stages.difix.network.lora import Lora, has_lora


def layers() -> dict[str, torch.Tensor]:
    return {
        "decoder.conv_in": random_images(6, 5, 3, 3),
        "decoder.attn.to_q": random_images(4, 8, seed=1),
    }


def test_new_lora_changes_nothing() -> None:
    weights = layers()
    for name, weight in Lora(weights, 4).adapted(weights).items():
        assert torch.equal(weight, weights[name.removesuffix(".weight")])


def test_change_is_two_convolutions_in_a_row() -> None:
    weights = layers()
    lora = Lora(weights, 4)
    a, b = lora.factors("decoder.conv_in")
    torch.nn.init.normal_(b)
    image = random_images(2, 5, 8, 8, seed=2)
    changed = lora.adapted(weights)["decoder.conv_in.weight"]
    plain = torch.conv2d(image, weights["decoder.conv_in"], padding=1)
    low_rank = torch.conv2d(torch.conv2d(image, a, padding=1), b)
    wanted = plain + (8 / 4) * low_rank
    torch.testing.assert_close(
        torch.conv2d(image, changed, padding=1), wanted, rtol=1e-4, atol=1e-4
    )


def test_lora_of_a_matrix_is_a_product() -> None:
    weights = layers()
    lora = Lora(weights, 2)
    a, b = lora.factors("decoder.attn.to_q")
    torch.nn.init.normal_(b)
    changed = lora.adapted(weights)["decoder.attn.to_q.weight"]
    torch.testing.assert_close(changed, weights["decoder.attn.to_q"] + 4 * b @ a)


@pytest.mark.parametrize(
    ("name", "adapted"),
    [
        ("decoder.mid_block.attentions.0.to_out.0", True),
        ("decoder.up_blocks.2.resnets.0.conv_shortcut", True),
        ("decoder.skip_conv_3", True),
        ("decoder.conv_norm_out", False),
        ("decoder.mid_block.attentions.0.group_norm", False),
        ("encoder.conv_in", False),
        ("post_quant_conv", False),
    ],
)
def test_layers_are_those_of_the_published_training(name: str, adapted: bool) -> None:
    assert has_lora(name) is adapted
