from pathlib import Path

import pytest
import torch
from tuning import gram_loss, no_weights

from stages.difix.config import LossConfig
from stages.difix.tuning.losses import FixerLoss, clamped, gram_distance, square
from stages.quality.metrics.lpips import Lpips
from stages.quality.metrics.ssim import ssim_inside

CPU = torch.device("cpu")
L2_ALONE = LossConfig(l2=1.0, lpips=0.0, gram=0.0, net="alex")


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def test_l2_is_that_of_images_from_minus_one_to_one(tmp_path: Path) -> None:
    loss = FixerLoss(L2_ALONE, no_weights(tmp_path), CPU)
    a, b = images(2, 3, 16, 16), images(3, 3, 16, 16)[:2]
    terms = loss(a, b, 0)
    wanted = torch.nn.functional.mse_loss(2 * a - 1, 2 * b - 1)
    torch.testing.assert_close(terms.l2, wanted)
    torch.testing.assert_close(terms.loss, wanted)


def test_pixels_out_of_range_still_have_a_gradient() -> None:
    """Clamping before the loss, as the published training does, leaves them none."""
    output = torch.full((1, 3, 8, 8), 1.2, requires_grad=True)
    (clamped(output) - 0.5).square().sum().backward()
    assert output.grad is not None
    assert (output.grad > 0).all()
    assert float(clamped(output).detach().max()) == 1.0


def test_gram_matrices_do_not_mix_images() -> None:
    """One matrix over the whole batch would mix images."""
    a, b = images(2, 5, 6, 7), images(3, 5, 6, 7)[:2]
    wanted = []
    for x, y in zip(a, b, strict=True):
        gx, gy = (torch.einsum("cij,dij->cd", one, one) for one in (x, y))
        wanted.append((gx - gy).square().mean() / (5 * 6 * 7))
    torch.testing.assert_close(gram_distance(a, b), torch.stack(wanted).mean())


@pytest.mark.parametrize("size", [(320, 240), (64, 500), (500, 64)])
def test_a_crop_larger_than_the_image_is_the_image(tmp_path: Path, size: tuple[int, int]) -> None:
    """The published 400 px crop raises an error for smaller images, after the warm-up."""
    a = images(1, 3, *size)
    corner = FixerLoss(L2_ALONE, no_weights(tmp_path), CPU).corner(5, *size)
    crop = square(a, 400, corner)
    top, left = corner.tolist()
    assert torch.equal(crop, a[..., top : top + 400, left : left + 400])
    assert crop.shape[-2:] == (min(400, size[0]), min(400, size[1]))


def test_crops_move_with_the_steps_over_the_whole_image(tmp_path: Path) -> None:
    first, other = (gram_loss(tmp_path, CPU, 32, seed) for seed in (0, 1))
    corners = torch.stack([first.corner(step, 34, 36) for step in range(200)])
    assert corners.amin(0).tolist() == [0, 0]
    assert corners.amax(0).tolist() == [2, 4]
    assert len(corners.unique(dim=0)) == 3 * 5
    assert torch.equal(first.corner(7, 34, 36), corners[7])
    assert any(not torch.equal(other.corner(step, 34, 36), corners[step]) for step in range(9))


def test_gram_looks_at_the_crop_of_its_step(tmp_path: Path) -> None:
    loss = gram_loss(tmp_path, CPU, 32)
    a, b = images(1, 3, 40, 48), images(2, 3, 40, 48)[:1]
    for step in (0, 1, 2):
        crops = (square(one, 32, loss.corner(step, 40, 48)) for one in (a, b))
        torch.testing.assert_close(loss(a, b, step).gram, gram_distance(*crops))
    assert loss(a, b, 0).gram != loss(a, b, 1).gram
    elsewhere = torch.tensor([8, 16])
    crops = (one[..., 8:40, 16:48] for one in (a, b))
    torch.testing.assert_close(loss(a, b, 0, elsewhere).gram, gram_distance(*crops))


def test_gram_starts_after_its_warm_up_and_is_scaled_to_the_crop(lpips_weights: Path) -> None:
    config = LossConfig(l2=0.0, lpips=0.0, gram=1.0, gram_warmup_steps=3, gram_crop_px=64)
    config = config.model_copy(update={"net": "alex"})
    a, b = images(1, 3, 64, 64), images(2, 3, 64, 64)[:1]
    terms = FixerLoss(config, lpips_weights, CPU)(a, b, 2)
    assert float(terms.gram) == 0
    small = float(FixerLoss(config, lpips_weights, CPU)(a, b, 3).gram)
    assert small > 0
    # Four times the area: about four times the distance, times the share that scales it back.
    wide = config.model_copy(update={"gram_crop_px": 128})
    assert float(FixerLoss(wide, lpips_weights, CPU)(a, b, 3).gram) == pytest.approx(4 * small)


def test_the_weighted_sum_is_the_loss(lpips_weights: Path) -> None:
    config = LossConfig(l2=0.5, lpips=2.0, gram=0.25, gram_warmup_steps=0, net="squeeze")
    a, b = images(2, 3, 64, 64), images(3, 3, 64, 64)[:2]
    terms = FixerLoss(config, lpips_weights, CPU)(a, b, 0)
    torch.testing.assert_close(terms.loss, 0.5 * terms.l2 + 2.0 * terms.lpips + 0.25 * terms.gram)
    wanted = Lpips(lpips_weights, "squeeze")(a, b).mean()
    torch.testing.assert_close(terms.lpips, wanted)


@pytest.mark.parametrize("crop_px", [40, 56, 64])
def test_both_terms_are_those_of_each_alone(lpips_weights: Path, crop_px: int) -> None:
    """Activations are shared where the crop is the whole image, and only there."""
    a, b = images(1, 3, 64, 48), images(2, 3, 64, 48)[:1]
    found, slopes = [], []
    # By these the largest slopes of both are near 0.9, so that float32 hides neither in the sum.
    for lpips, gram in ((100.0, 1e-4), (100.0, 0.0), (0.0, 1e-4)):
        weights = {"l2": 0.0, "lpips": lpips, "gram": gram, "gram_warmup_steps": 0}
        config = LossConfig(**weights, gram_crop_px=crop_px, net="squeeze")
        output = a.clone().requires_grad_()
        terms = FixerLoss(config, lpips_weights, CPU)(output, b, 3)
        terms.loss.backward()
        found.append(terms)
        slopes.append(output.grad)
    both, alone, other = found
    torch.testing.assert_close(both.lpips, alone.lpips)
    torch.testing.assert_close(both.gram, other.gram)
    torch.testing.assert_close(slopes[0], slopes[1] + slopes[2])


def test_without_backbones_l2_is_left_and_a_warning_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = FixerLoss(LossConfig(net="alex"), no_weights(tmp_path), CPU)
    assert "WARNING" in (message := capsys.readouterr().err)
    assert "L2 alone" in message
    assert "fix: have alex in weights.nets" in message
    assert loss.differs.endswith("; the LPIPS and Gram terms are off, L2 alone is left")
    assert "\n" not in loss.differs
    terms = loss(images(1, 3, 8, 8), images(2, 3, 8, 8)[:1], 10_000)
    torch.testing.assert_close(terms.loss, terms.l2)


def test_another_backbone_is_used_with_a_warning(
    lpips_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = FixerLoss(LossConfig(net="vgg"), lpips_weights, CPU)
    assert loss.net == "alex"
    assert "use alex instead" in capsys.readouterr().err
    assert loss.differs.endswith("; LPIPS and Gram use alex instead")
    assert FixerLoss(L2_ALONE, lpips_weights, CPU).differs == ""
    alone = L2_ALONE.model_copy(update={"net": "vgg"})
    assert FixerLoss(alone, lpips_weights, CPU).differs == "", "L2 alone was asked for"


def test_lpips_is_available_for_measuring_without_being_a_loss(
    lpips_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = FixerLoss(L2_ALONE, lpips_weights, CPU)
    assert loss.perceptual is not None
    terms = loss(images(1, 3, 64, 64), images(2, 3, 64, 64)[:1], 0)
    torch.testing.assert_close(terms.loss, terms.l2)
    assert not capsys.readouterr().err


def test_the_loss_of_half_precision_outputs_is_float32(tmp_path: Path) -> None:
    loss = FixerLoss(L2_ALONE, no_weights(tmp_path), CPU)
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(images(1, 3, 8, 8).bfloat16(), images(2, 3, 8, 8)[:1], 0)
    assert terms.loss.dtype == torch.float32


def test_an_all_zero_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        LossConfig(l2=0.0, lpips=0.0, gram=0.0)


def test_terms_without_weights_or_before_their_warm_up_teach_nothing(
    tmp_path: Path, lpips_weights: Path
) -> None:
    config = LossConfig(net="alex", lpips=0.5, gram=0.25, gram_warmup_steps=10)
    blind = FixerLoss(config, no_weights(tmp_path), CPU).effective(100)
    assert blind == {"l2": 1.0, "lpips": 0.0, "gram": 0.0, "ssim": 0.0, "net": None}
    loss = FixerLoss(config, lpips_weights, CPU)
    assert loss.effective(10)["gram"] == 0.0
    assert loss.effective(11) | {"net": ""} == {
        "l2": 1.0,
        "lpips": 0.5,
        "gram": 0.25,
        "ssim": 0.0,
        "net": "",
    }


def test_structural_dissimilarity_counts_by_its_weight(tmp_path: Path) -> None:
    a, b = images(2, 3, 24, 20), images(3, 3, 24, 20)[:2]
    config = LossConfig(l2=0.5, lpips=0.0, gram=0.0, ssim=2.0)
    terms = FixerLoss(config, no_weights(tmp_path), CPU)(a, b, 0)
    torch.testing.assert_close(terms.ssim, 1 - ssim_inside(a, b).mean().float())
    torch.testing.assert_close(terms.loss, 0.5 * terms.l2 + 2.0 * terms.ssim)
    assert FixerLoss(L2_ALONE, no_weights(tmp_path), CPU)(a, b, 0).ssim == 0
