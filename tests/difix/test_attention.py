"""Reference mixing against plain attention over concatenated tokens and diffusers' own UNet."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from fixers import perturbed, random_images, tiny_spec
from torch import Tensor

from stages.difix.network.attention import _MIXINGS, Mixing, attend, joined_cache

HEADS = 2


def tokens(seed: int, views: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of 3 samples of some views, [3 * views, 5, 8]."""
    return tuple(random_images(3 * views, 5, 8, seed=seed + index) - 0.5 for index in range(3))


@pytest.fixture(scope="module")
def unets() -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """Ours and diffusers' own with the same weights."""
    fixer = perturbed(tiny_spec())
    plain = UNet2DConditionModel(**fixer.spec.unet)
    plain.load_state_dict(fixer.unet.state_dict())
    return fixer.unet, plain.eval()


def run(unet: UNet2DConditionModel, latent: Tensor, **mixing: object) -> Tensor:
    prompt = random_images(1, 77, 16, seed=9).expand(len(latent), -1, -1)
    with torch.no_grad():
        return unet(latent, 199, prompt, cross_attention_kwargs=mixing or None).sample


def test_attend_is_softmax_over_keys() -> None:
    query, key, value = tokens(0)
    found = attend(query, key, value, 1)
    weights = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1)
    torch.testing.assert_close(found, weights @ value)


@pytest.mark.parametrize("mixing", ["mutual", "one_way"])
def test_target_attends_to_all_views_of_its_own_sample(mixing: Mixing) -> None:
    query, key, value = tokens(3)
    found = _MIXINGS[mixing](query, key, value, HEADS, 2)
    for sample in range(3):
        own = slice(2 * sample, 2 * sample + 2)
        joined_key, joined_value = (x[own].reshape(1, 10, 8) for x in (key, value))
        wanted = attend(query[2 * sample][None], joined_key, joined_value, HEADS)[0]
        torch.testing.assert_close(found[2 * sample], wanted)


def test_reference_attends_to_its_target_in_mutual_mixing_alone() -> None:
    query, key, value = tokens(6)
    alone = attend(query[1::2], key[1::2], value[1::2], HEADS)
    one_way = _MIXINGS["one_way"](query, key, value, HEADS, 2)[1::2]
    mutual = _MIXINGS["mutual"](query, key, value, HEADS, 2)[1::2]
    torch.testing.assert_close(one_way, alone)
    assert (mutual - alone).abs().max() > 1e-3


def test_mutual_mixing_treats_views_alike() -> None:
    query, key, value = tokens(9)
    swap = [1, 0, 3, 2, 5, 4]
    straight = _MIXINGS["mutual"](query, key, value, HEADS, 2)
    swapped = _MIXINGS["mutual"](query[swap], key[swap], value[swap], HEADS, 2)
    torch.testing.assert_close(straight[swap], swapped)


@pytest.mark.parametrize("mixing", ["mutual", "one_way"])
def test_one_view_is_the_plain_unet(unets: tuple, mixing: Mixing) -> None:
    ours, plain = unets
    latent = random_images(2, 16, 8, 8)
    wanted = run(plain, latent)
    torch.testing.assert_close(run(ours, latent, views=1, mixing=mixing), wanted)
    torch.testing.assert_close(run(ours, latent), wanted)


def test_equal_views_change_nothing(unets: tuple) -> None:
    """Every key is there twice, and softmax over pairs equals softmax over one of each."""
    ours, plain = unets
    one = random_images(1, 16, 8, 8)
    found = run(ours, one.expand(2, -1, -1, -1), views=2, mixing="mutual")
    torch.testing.assert_close(found[:1], run(plain, one), rtol=1e-4, atol=1e-5)


def test_another_reference_changes_the_target(unets: tuple) -> None:
    ours, _ = unets
    first, second = random_images(2, 16, 8, 8), random_images(2, 16, 8, 8)
    second[1] = second[1].flip(-1)
    outputs = [run(ours, x, views=2, mixing="one_way")[0] for x in (first, second)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4


def test_cache_keeps_the_order_of_the_views() -> None:
    key = torch.arange(4.0).view(4, 1, 1).expand(4, 3, 1)
    cache = joined_cache({"layer": (key, key)}, views=2)
    assert cache["layer"][0][:, :, 0].tolist() == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]]
