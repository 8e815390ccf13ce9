"""Encoder and decoder with skips, against diffusers' own AutoencoderKL."""

import pytest
import torch
from fixers import perturbed, published_spec, random_images, tiny_spec
from torch import Tensor, nn

from stages.difix.network.model import Fixer
from stages.difix.network.vae import build_skips, decode, encode, skip_name


@pytest.fixture(scope="module", params=[tiny_spec, published_spec], ids=["tiny", "published"])
def fixer(request: pytest.FixtureRequest) -> Fixer:
    return perturbed(request.param())


def images() -> Tensor:
    return 2 * random_images(2, 3, 16, 24) - 1


@torch.no_grad()
def test_mean_is_the_posteriors(fixer: Fixer) -> None:
    mean, activations = encode(fixer.vae, images())
    torch.testing.assert_close(mean, fixer.vae.encode(images()).latent_dist.mean)
    assert [one.shape[-1] for one in activations] == [24 // 2**i for i in range(len(activations))]


@torch.no_grad()
def test_samples_have_the_posteriors_deviation(fixer: Fixer) -> None:
    one = images()[:1].expand(400, -1, -1, -1)
    samples, _ = encode(fixer.vae, one, torch.Generator().manual_seed(0))
    posterior = fixer.vae.encode(one[:1]).latent_dist
    torch.testing.assert_close(samples.std(dim=0), posterior.std[0], rtol=0.2, atol=1e-6)
    again, _ = encode(fixer.vae, one, torch.Generator().manual_seed(0))
    assert torch.equal(samples, again)


@pytest.mark.parametrize("off", ["gamma", "weights"])
@torch.no_grad()
def test_without_gain_it_is_the_plain_decoder(fixer: Fixer, off: str) -> None:
    mean, activations = encode(fixer.vae, images())
    silent = [nn.Conv2d(s.in_channels, s.out_channels, 1, bias=False) for s in fixer.skips]
    for one in silent:
        nn.init.zeros_(one.weight)
    skips = fixer.skips if off == "gamma" else nn.ModuleList(silent)
    found = decode(fixer.vae, skips, mean, activations, gamma=0.0 if off == "gamma" else 1.0)
    torch.testing.assert_close(found, fixer.vae.decode(mean).sample)
    loud = decode(fixer.vae, fixer.skips, mean, activations)
    assert (loud - found).abs().max() > 1e-3


@torch.no_grad()
def test_gamma_scales_what_the_skips_add(fixer: Fixer) -> None:
    mean, activations = encode(fixer.vae, images())
    doubled = nn.ModuleList(
        nn.Conv2d(s.in_channels, s.out_channels, 1, bias=False) for s in fixer.skips
    )
    for new, old in zip(doubled, fixer.skips, strict=True):
        new.weight.copy_(2 * old.weight)
    found = decode(fixer.vae, fixer.skips, mean, activations, gamma=2.0)
    torch.testing.assert_close(found, decode(fixer.vae, doubled, mean, activations))


@torch.no_grad()
def test_weights_replace_the_vaes_own(fixer: Fixer) -> None:
    mean, activations = encode(fixer.vae, images())
    bias = fixer.vae.decoder.conv_out.bias
    weights = {
        "decoder.conv_out.bias": bias + 1.0,
        "decoder.conv_in.weight": fixer.vae.decoder.conv_in.weight,
    }
    found = decode(fixer.vae, fixer.skips, mean, activations, weights=weights)
    plain = decode(fixer.vae, fixer.skips, mean, activations)
    torch.testing.assert_close(found, plain + 1.0)


def test_checkpointing_changes_no_gradient(fixer: Fixer) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        mean, activations = encode(fixer.vae, images())
        out = decode(fixer.vae, fixer.skips, mean, activations, checkpointing=checkpointing)
        weights = [one.weight for one in fixer.skips] + [fixer.vae.decoder.conv_in.weight]
        return list(torch.autograd.grad(out.square().mean(), weights))

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_skips_have_the_published_shapes() -> None:
    found = [tuple(one.weight.shape) for one in build_skips([128, 256, 512, 512])]
    assert found == [(512, 512, 1, 1), (512, 256, 1, 1), (512, 128, 1, 1), (256, 128, 1, 1)]
    assert [skip_name(index) for index in range(4)] == [
        f"decoder.skip_conv_{i}" for i in (1, 2, 3, 4)
    ]
