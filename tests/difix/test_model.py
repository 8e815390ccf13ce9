"""The whole fixer, against diffusers' parts put together by hand."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from fixers import perturbed, published_spec, random_images, tiny_spec, warped_spec
from torch import Tensor

from stages.difix.network.model import (
    Fixer,
    empty_fixer,
    random_fixer,
    trainable,
)
from stages.difix.network.spec import SIZES, Spec
from stages.samples.batches import with_warped

SPECS = {"tiny": tiny_spec, "published": published_spec}
BUDGET_BYTES = 12e6  # of a fixer in the repository, in half precision


@pytest.fixture(scope="module", params=SPECS)
def fixer(request: pytest.FixtureRequest) -> Fixer:
    return perturbed(SPECS[request.param]())


def by_hand(fixer: Fixer, image: Tensor) -> Tensor:
    """A render [B, 3, H, W] through diffusers' parts and scheduler; LoRA and skips left out."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    vae, scale = fixer.vae, fixer.vae.config.scaling_factor
    latent = vae.encode(2 * image - 1).latent_dist.mean * scale
    prompt = fixer.prompt.expand(len(image), -1, -1)
    noise = fixer.unet(latent, 199, prompt).sample
    clean = scheduler.step(noise, 199, latent).pred_original_sample
    decoded = vae.decode(clean / scale).sample
    return image + decoded / 2 if fixer.spec.residual else (decoded + 1) / 2


@torch.no_grad()
def test_one_view_is_unet_scheduler_and_vae(fixer: Fixer) -> None:
    silent = perturbed(fixer.spec.changed(gamma=0.0, lora_rank=0))
    image = random_images(2, 3, 32, 48)
    torch.testing.assert_close(silent(image[:, None]), by_hand(silent, image), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_batch_and_views_do_not_mix(fixer: Fixer) -> None:
    views = random_images(3, 2, 3, 32, 32)
    whole = fixer(views)
    for index in range(3):
        torch.testing.assert_close(
            fixer(views[index : index + 1])[0], whole[index], rtol=1e-3, atol=1e-4
        )


@torch.no_grad()
def test_reference_matters(fixer: Fixer) -> None:
    views = random_images(1, 2, 3, 32, 32)
    other = views.clone()
    other[:, 1] = other[:, 1].flip(-1)
    assert (fixer(views) - fixer(other)).abs().max() > 1e-6
    assert (fixer(views) - fixer(views[:, :1])).abs().max() > 1e-6


@torch.no_grad()
def test_cached_references_give_the_same_output() -> None:
    fixer = perturbed(tiny_spec())
    views = random_images(2, 3, 3, 32, 32)
    cache = fixer.reference_cache(views[:, 1:])
    torch.testing.assert_close(fixer(views[:, :1], cache), fixer(views), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_warped_references_are_channels_of_the_render() -> None:
    fixer, views, warped = (
        perturbed(warped_spec()),
        random_images(2, 1, 3, 32, 48),
        torch.rand(2, 2, 4, 32, 48),
    )
    fixed = fixer(views, warped=warped)
    assert fixed.shape == (2, 3, 32, 48)
    assert torch.equal(fixed, fixer(with_warped(views, warped)))
    joined = torch.cat([views[:, 0], warped[:, 0], warped[:, 1]], dim=1)
    assert torch.equal(fixed, fixer(joined[:, None]))
    alone = fixer(views[1:], warped=warped[1:])
    torch.testing.assert_close(fixed[1:], alone, rtol=1e-3, atol=1e-4)
    for index in range(2):
        other = warped.clone()
        other[:, index] = other[:, index].flip(-1)
        assert (fixer(views, warped=other) - fixed).abs().max() > 1e-6


@torch.no_grad()
def test_absent_warped_references_count_as_zero() -> None:
    fixer, views, warped = (
        perturbed(warped_spec()),
        random_images(1, 1, 3, 32, 32),
        torch.rand(1, 1, 4, 32, 32),
    )
    padded = torch.cat([warped, torch.zeros_like(warped)], dim=1)
    assert torch.equal(fixer(views, warped=warped), fixer(views, warped=padded))
    assert torch.equal(fixer(views), fixer(views, warped=torch.zeros_like(padded)))


def test_fresh_fixer_of_warped_references_changes_nothing() -> None:
    views, warped = random_images(1, 1, 3, 32, 32), torch.rand(1, 2, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(random_fixer(warped_spec(), 0)(views, warped=warped), views[:, 0])


def test_cache_of_mutual_attention_is_refused() -> None:
    with pytest.raises(AssertionError, match="mutual"):
        perturbed(published_spec()).reference_cache(random_images(1, 1, 3, 32, 32))


@torch.no_grad()
def test_merging_lora_changes_no_output() -> None:
    fixer = perturbed(published_spec())
    views = random_images(1, 2, 3, 32, 32)
    before = fixer(views)
    fixer.fold()
    assert fixer.lora is None
    torch.testing.assert_close(fixer(views), before, rtol=1e-4, atol=1e-5)
    fixer.fold()


def test_checkpointing_changes_no_gradient(fixer: Fixer) -> None:
    views = random_images(1, 2, 3, 32, 32)

    def gradients(one: Fixer) -> list[Tensor]:
        one.zero_grad()
        one.train()(views).square().mean().backward()
        return [p.grad.clone() for p in one.parameters() if p.grad is not None]

    plain = gradients(perturbed(fixer.spec))
    saving = perturbed(fixer.spec)
    saving.use_checkpointing()
    for a, b in zip(plain, gradients(saving), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_fresh_tiny_fixer_changes_nothing() -> None:
    fixer = random_fixer(tiny_spec(), 0)
    views = random_images(2, 2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(fixer(views), views[:, 0])


def test_random_fixers_are_functions_of_their_seed() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (random_fixer(tiny_spec(), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_published_training_freezes_the_encoder(fixer: Fixer) -> None:
    names = set(trainable(fixer, "published"))
    assert all(one.startswith(("unet.", "skips.", "lora.")) for one in names)
    assert {one.partition(".")[0] for one in names} >= {"unet", "skips"}
    assert not any(p.requires_grad for name, p in fixer.named_parameters() if name not in names)
    assert set(trainable(fixer, "all")) == {name for name, _ in fixer.named_parameters()}


def test_sd_turbo_size_has_the_published_counts() -> None:
    """Parameter counts of the published checkpoints."""
    fixer = empty_fixer(SIZES["sd-turbo"])

    def count(module: torch.nn.Module) -> int:
        return sum(math.prod(one.shape) for one in module.parameters())

    assert count(fixer.unet) == 865_910_724
    assert count(fixer.vae) == 83_653_863
    assert count(fixer.skips) == 491_520
    assert fixer.lora is not None
    assert count(fixer.lora) == 523_932
    assert len(fixer.lora.names) == 43


def test_sizes_differ_in_configuration_alone() -> None:
    names = [Spec(**vars(one)).size for one in SIZES.values()]
    assert names == list(SIZES)
    assert SIZES["tiny"].factor == 4
    assert SIZES["sd-turbo"].factor == 8
    assert tiny_spec().size == "other"


def test_small_size_fits_the_repository() -> None:
    assert 5e6 < empty_fixer(SIZES["small"]).parameter_count() < BUDGET_BYTES / 2
