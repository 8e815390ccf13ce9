"""Low-rank changes, against their definition."""

import pytest
import torch
from fixers import pictures

from stages.difix.network.lora import Lora, takes_lora


def layers() -> dict[str, torch.Tensor]:
    return {"decoder.conv_in": pictures(6, 5, 3, 3), "decoder.attn.to_q": pictures(4, 8, seed=1)}


def test_a_fresh_one_changes_nothing() -> None:
    given = layers()
    for name, weight in Lora(given, 4).changed(given).items():
        assert torch.equal(weight, given[name.removesuffix(".weight")])


def test_change_is_two_convolutions_in_a_row() -> None:
    given = layers()
    lora = Lora(given, 4)
    a, b = lora.factors("decoder.conv_in")
    torch.nn.init.normal_(b)
    image = pictures(2, 5, 8, 8, seed=2)
    changed = lora.changed(given)["decoder.conv_in.weight"]
    plain = torch.conv2d(image, given["decoder.conv_in"], padding=1)
    low_rank = torch.conv2d(torch.conv2d(image, a, padding=1), b)
    wanted = plain + (8 / 4) * low_rank
    torch.testing.assert_close(
        torch.conv2d(image, changed, padding=1), wanted, rtol=1e-4, atol=1e-4
    )


def test_matrices_are_changed_as_layers_are() -> None:
    given = layers()
    lora = Lora(given, 2)
    a, b = lora.factors("decoder.attn.to_q")
    torch.nn.init.normal_(b)
    changed = lora.changed(given)["decoder.attn.to_q.weight"]
    torch.testing.assert_close(changed, given["decoder.attn.to_q"] + 4 * b @ a)


@pytest.mark.parametrize(
    ("name", "taken"),
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
def test_layers_are_those_of_the_published_training(name: str, taken: bool) -> None:
    assert takes_lora(name) is taken
