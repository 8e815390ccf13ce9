"""Inference on images of any size."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from fixers import perturbed, published_spec, tiny_spec, warped_spec
from torch import Tensor, nn

from stages.difix.config import FixerConfig
from stages.difix.inference import Runner, feather, tile_starts
from stages.difix.network.model import Fixer, random_fixer
from stages.difix.network.spec import Spec
from stages.run.errors import UserError
from stages.scenes.config import ReferenceRule
from stages.scenes.images import Pixels


def image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


def runner(fixer: Fixer | None = None, **values: object) -> Runner:
    return Runner(fixer or perturbed(tiny_spec()), FixerConfig(device="cpu", **values))


def identity_runner(**values: object) -> Runner:
    """A runner whose fixer returns its input."""
    return runner(random_fixer(tiny_spec(), 0), **values)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (53, 37), (64, 48), (15, 200)])
@pytest.mark.parametrize("tile_px", [0, 32])
def test_padding_and_tiling_change_nothing(size: tuple[int, int], tile_px: int) -> None:
    one = image(*size)
    (found,) = identity_runner(tile_px=tile_px, tile_overlap_px=16).fix([one], [[one]])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one, atol=1e-6)


@pytest.mark.parametrize("values", [{"fit": "resize"}, {"resolution": 32}])
def test_resized_images_return_at_their_size(values: dict) -> None:
    flat = np.full((53, 37, 3), 0.25, np.float32)
    (found,) = identity_runner(**values).fix([flat], [[flat]])
    assert found.shape == flat.shape
    np.testing.assert_allclose(found, flat, atol=1e-3)


def test_order_and_batch_change_nothing() -> None:
    images = [image(32, 48, seed) for seed in range(3)] + [image(48, 32, 9)]
    references = [[image(32, 48, 20 + seed)] for seed in range(3)] + [[image(64, 64, 30)]]
    fixing = runner(batch_size=2)
    together = fixing.fix(images, references)
    for index in (3, 1, 0, 2):
        (alone,) = fixing.fix([images[index]], [references[index]])
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


@pytest.mark.parametrize(("mode", "batches"), [("throughput", [2, 2, 1]), ("latency", [1] * 5)])
def test_the_mode_decides_the_batch_size(
    mode: str, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fixing, counts = runner(mode=mode, batch_size=2), []
    forward = fixing.fixer.forward

    def counted(images: Tensor, *args: object, **kwargs: object) -> Tensor:
        counts.append(len(images))
        return forward(images, *args, **kwargs)

    monkeypatch.setattr(fixing.fixer, "forward", counted)
    fixing.fix([image(16, 16, seed) for seed in range(5)], [[image(16, 16, 9)]] * 5)
    assert counts == batches


def test_equal_references_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fixing, counts = runner(), []
    reference_cache = fixing.fixer.reference_cache

    def counted(views: Tensor, generator: torch.Generator | None = None) -> object:
        counts.append(len(views))
        return reference_cache(views, generator)

    monkeypatch.setattr(fixing.fixer, "reference_cache", counted)
    fixing.fix([image(32, 32, seed) for seed in range(3)], [[image(32, 32, 7)]] * 3)
    assert counts == [1]


def test_references_matter_and_may_be_withheld() -> None:
    images, references = [image(32, 32)], [[image(32, 32, 1)]]
    with_reference = runner().fix(images, references)[0]
    other = runner().fix(images, [[image(32, 32, 2)]])[0]
    withheld = runner(reference="withhold")
    assert np.abs(with_reference - other).max() > 1e-6
    np.testing.assert_array_equal(withheld.fix(images)[0], withheld.fix(images, references)[0])
    with pytest.raises(UserError, match="expects a reference and got none"):
        runner().fix(images)


def test_attention_can_be_overridden() -> None:
    images, references = [image(32, 32)], [[image(32, 32, 1)]]
    stored = runner().fix(images, references)[0]
    mutual = runner(reference_attention="mutual")
    assert "reference mutual" in mutual.summary
    assert np.abs(stored - mutual.fix(images, references)[0]).max() > 1e-6


def test_more_references_than_the_fixer_takes_are_refused() -> None:
    with pytest.raises(UserError, match=r"(?s)difix\.references: 2.*at most 1.*fixer\.json"):
        runner(references=2)
    with pytest.raises(UserError, match=r"(?s)difix\.references.*at most 2"):
        runner(perturbed(tiny_spec(references=2)), references=3)


@pytest.mark.parametrize("values", [{}, {"reference_attention": "mutual"}, {"tile_px": 32}])
def test_all_references_matter_and_their_order_does_not(values: dict) -> None:
    fixing = runner(perturbed(tiny_spec(references=2)), references=2, tile_overlap_px=16, **values)
    one, first, second, other = (image(32, 48, seed) for seed in range(4))
    (both,) = fixing.fix([one], [[first, second]])
    for references in ([first, other], [other, second]):
        assert np.abs(both - fixing.fix([one], [references])[0]).max() > 1e-6
    np.testing.assert_allclose(both, fixing.fix([one], [[second, first]])[0], atol=1e-5)


def test_several_references_are_what_the_network_gets() -> None:
    fixer = perturbed(tiny_spec(references=2))
    views = [image(32, 32, seed) for seed in range(3)]
    with torch.no_grad():
        stacked = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)[None]
        wanted = fixer(stacked)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    (found,) = runner(fixer, references=2).fix(views[:1], [views[1:]])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (53, 37), (15, 200)])
@pytest.mark.parametrize("values", [{}, {"tile_px": 32, "tile_overlap_px": 16}])
def test_shifted_grids_move_nothing(size: tuple[int, int], values: dict) -> None:
    one = image(*size)
    (found,) = identity_runner(**values).fix([one], [[one]], 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one, atol=1e-6)


def test_shifted_grids_are_averaged() -> None:
    """Of a network with a period of 8 px, two passes are half of it apart."""
    fixing, one, beside = runner(), image(32, 48), image(32, 48, 1)
    assert fixing.spec.grid_px == 8
    moved, moved_beside = (np.pad(x, ((4, 0), (4, 0), (0, 0)), "reflect") for x in (one, beside))
    (plain,), (shifted,) = fixing.fix([one], [[beside]]), fixing.fix([moved], [[moved_beside]])
    (found,) = fixing.fix([one], [[beside]], 2)
    np.testing.assert_allclose(found, (plain + shifted[4:, 4:]) / 2, atol=1e-6)
    assert np.abs(found - plain).max() > 1e-4
    np.testing.assert_array_equal(found, fixing.fix([one], [[beside]], 2)[0])


@pytest.mark.parametrize(("spec", "period"), [(tiny_spec(), 8), (published_spec(), 64)])
def test_period_of_the_grid_is_a_pixel_of_the_smallest_layer(spec: Spec, period: int) -> None:
    fixing, shapes = runner(perturbed(spec)), []
    fixing.fixer.unet.mid_block.register_forward_hook(
        lambda layer, inputs, output: shapes.append(tuple(output.shape[-2:]))
    )
    one = image(128, 64)
    fixing.fix([one], [[one]])
    assert spec.grid_px == period
    assert set(shapes) == {(128 // period, 64 // period)}


def test_sampled_latents_depend_on_seed_and_index_alone() -> None:
    images = [image(32, 32, seed) for seed in range(3)]
    one = runner(latent="sample", seed=1).fix(images, [[one] for one in images])
    same = runner(latent="sample", seed=1, batch_size=1).fix(images, [[one] for one in images])
    other = runner(latent="sample", seed=2).fix(images, [[one] for one in images])
    np.testing.assert_array_equal(np.stack(one), np.stack(same))
    assert np.abs(np.stack(one) - np.stack(other)).max() > 1e-5


def test_lora_is_merged_before_running() -> None:
    fixer = perturbed(published_spec())
    one = image(32, 32)
    with torch.no_grad():
        views = torch.from_numpy(np.stack([one, one])).permute(0, 3, 1, 2)[None]
        wanted = fixer(views)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    found = runner(fixer).fix([one], [[one]])[0]
    assert fixer.lora is None
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_values_that_are_not_finite_are_refused() -> None:
    fixer = perturbed(tiny_spec())
    nn.init.constant_(fixer.vae.decoder.conv_out.bias, float("nan"))
    with pytest.raises(UserError, match="not finite"):
        runner(fixer).fix([image(16, 16)], [[image(16, 16)]])


def test_multiple_must_suit_the_vae() -> None:
    with pytest.raises(UserError, match=r"(?s)difix\.multiple: 4.*a multiple of 8"):
        runner(perturbed(published_spec()), multiple=4)


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 48, 16), (48, 48, 16), (500, 64, 32)]
)
def test_tiles_cover_a_side_and_overlap(length: int, tile: int, overlap: int) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile == length
    assert all(b - a <= tile - overlap for a, b in pairwise(starts))


def test_feather_falls_towards_the_border_and_is_never_zero() -> None:
    weights = feather((8, 12), 3)
    assert weights.shape == (8, 12)
    assert float(weights[4, 6]) == 1
    assert float(weights.min()) > 0
    assert float(weights[0, 0]) < float(weights[1, 1]) < float(weights[4, 4])


def warped(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).random((height, width, 4)).astype(np.float32)


def test_warped_references_are_what_the_network_gets() -> None:
    fixer, one = perturbed(warped_spec(2)), image(32, 48)
    beside = [warped(32, 48, 1), warped(32, 48, 2)]
    (found,) = runner(fixer).fix([one], [beside])
    channels = np.concatenate([one, *beside], axis=-1)
    views = torch.from_numpy(channels).permute(2, 0, 1)[None, None]
    with torch.no_grad():
        expected = fixer(views)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    (other,) = runner(fixer).fix([one], [[beside[0], warped(32, 48, 3)]])
    assert np.abs(found - other).max() > 1e-4


def second_reference(images: Tensor) -> Tensor:
    """A network that returns its second warped reference."""
    return images[:, 0, 7:10]


@pytest.mark.parametrize(
    ("values", "grids"), [({}, 1), ({}, 3), ({"tile_px": 32, "tile_overlap_px": 16}, 1)]
)
def test_padding_tiles_and_grids_move_warped_references_with_the_image(
    values: dict, grids: int
) -> None:
    fixing = runner(random_fixer(warped_spec(2), 0), **values)
    fixing.forward = second_reference  # type: ignore[assignment]
    beside = [warped(41, 53, 1), warped(41, 53, 2)]
    (found,) = fixing.fix([image(41, 53)], [beside], grids)
    np.testing.assert_allclose(found, beside[1][..., :3], atol=1e-6)


def test_missing_warped_references_are_zero_and_withheld_ones_too() -> None:
    fixer, one, beside = perturbed(warped_spec(2)), image(20, 24), warped(20, 24, 1)
    empty = np.zeros_like(beside)
    fix, withheld = runner(fixer).fix, runner(fixer, reference="withhold").fix
    np.testing.assert_array_equal(fix([one], [[beside]]), fix([one], [[beside, empty]]))
    np.testing.assert_array_equal(withheld([one], [[beside]]), fix([one], [[empty, empty]]))
    assert np.abs(fix([one], [[beside]])[0] - withheld([one])[0]).max() > 1e-4
    with pytest.raises(UserError, match=r"(?s)3 references.*up to 2"):
        fix([one], [[beside] * 3])


def test_the_rule_asks_for_warped_references_by_the_fixer_alone() -> None:
    for spec in (tiny_spec(), published_spec()):
        assert runner(perturbed(spec)).rule == ReferenceRule("nearest", 1)
    assert runner(perturbed(warped_spec(3)), reference_from="overlap").rule == ReferenceRule(
        "overlap", 3, warped=True
    )
