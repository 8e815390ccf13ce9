"""The people's box, flicker and the colour-corrected PSNR against values computed by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from stages.quality.crops import people_box
from stages.quality.evaluation import MeasuredView, Meter, evaluate
from stages.quality.metrics.color_corrected import cc_psnr
from stages.quality.metrics.flicker import Flicker

GREY = np.full(3, 0.5)


@pytest.fixture
def view() -> MeasuredView:
    """A random image and a noisy render of it, 64x96 px."""
    random = np.random.default_rng(0)
    truth = random.random((96, 64, 3)).astype(np.float32)
    given = np.clip(truth + 0.1 * random.standard_normal(truth.shape), 0, 1).astype(np.float32)
    return MeasuredView("000021", "28", truth, "ab", given)


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        ((40, 80), (10, 50), (slice(37, 83), slice(7, 53))),  # a margin of 96 / 32 = 3 px
        ((0, 4), (60, 64), (slice(0, 32), slice(32, 64))),  # moved inwards
        ((0, 96), (0, 64), (slice(0, 96), slice(0, 64))),
    ],
)
def test_box_holds_the_people_and_a_margin(
    rows: tuple[int, int], columns: tuple[int, int], box: tuple[slice, slice]
) -> None:
    mask = np.zeros((96, 64), bool)
    mask[slice(*rows), slice(*columns)] = True
    assert people_box(mask, 32) == box
    assert people_box(np.zeros_like(mask), 32) is None


def test_crop_is_measured_as_an_image_of_its_own(view: MeasuredView) -> None:
    crop = slice(20, 70), slice(5, 45)
    row = Meter("cpu").measure(replace(view, crop=crop))
    alone = Meter("cpu").measure(replace(view, truth=view.truth[crop], given=view.given[crop]))
    assert [row["crop_psnr"], row["crop_ssim"]] == [alone["psnr"], alone["ssim"]]
    inside = (torch.from_numpy(image[crop]) for image in (view.given, view.truth))
    assert row["crop_psnr"] == pytest.approx(
        float(peak_signal_noise_ratio(*inside, data_range=1.0)), abs=1e-4
    )
    assert row["crop_lpips"] is None
    assert Meter("cpu").measure(view)["crop_psnr"] is None


def test_invalid_pixels_of_a_crop_do_not_count(view: MeasuredView) -> None:
    valid = np.zeros((96, 64), bool)
    valid[:, :25] = True
    row = Meter("cpu").measure(replace(view, valid=valid, crop=(slice(20, 70), slice(5, 45))))
    error = np.square(view.given - view.truth)[20:70, 5:25].mean()
    assert row["crop_psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-4)


def test_color_correction_takes_gain_and_offset_but_no_error(view: MeasuredView) -> None:
    truth = torch.from_numpy(view.truth).permute(2, 0, 1)[None]
    gains = torch.tensor([0.5, 0.7, 0.9]).reshape(1, 3, 1, 1)
    assert float(cc_psnr(truth, gains * truth + 0.05)) > 100
    render = torch.from_numpy(view.given).permute(2, 0, 1)[None]
    squares = []
    for one, other in zip(view.truth.reshape(-1, 3).T, view.given.reshape(-1, 3).T, strict=True):
        slope, offset = np.polyfit(one.astype(np.float64), other.astype(np.float64), 1)
        squares.append(np.square(np.clip((other - offset) / slope, 0, 1) - one).mean())
    expected = -10 * np.log10(np.mean(squares))
    assert float(cc_psnr(truth, render)) == pytest.approx(expected, abs=1e-4)
    assert Meter("cpu").measure(view)["cc_psnr"] == pytest.approx(expected, abs=1e-4)


def test_color_correction_of_a_flat_render_is_black_as_in_gsplat(view: MeasuredView) -> None:
    """Its slope is zero, so only the offset is taken off, which is its colour."""
    truth = torch.from_numpy(view.truth).permute(2, 0, 1)[None]
    expected = -10 * np.log10(np.square(view.truth.astype(np.float64)).mean())
    assert float(cc_psnr(truth, torch.full_like(truth, 0.4))) == pytest.approx(expected, abs=1e-4)


def test_color_correction_sees_valid_pixels_alone(view: MeasuredView) -> None:
    valid = np.zeros((96, 64), bool)
    valid[:, :25] = True
    left = Meter("cpu").measure(replace(view, truth=view.truth[:, :25], given=view.given[:, :25]))
    assert Meter("cpu").measure(replace(view, valid=valid))["cc_psnr"] == pytest.approx(
        left["cc_psnr"], abs=1e-5
    )


@pytest.fixture
def flickering() -> Callable[[float], float | None]:
    """Flicker of a camera whose image brightens by 0.2 and whose render does by 0.2 + `extra`."""

    def measure(extra: float) -> float | None:
        views = []
        for time, step in (("000021", 0.0), ("000033", 1.0)):
            truth = np.full((32, 32, 3), 0.3 + 0.2 * step, np.float32)
            given = truth + np.float32(0.1 + extra * step)
            views.append(MeasuredView(time, "28", truth, time, given))
        return evaluate(views, Meter("cpu"), GREY, "ignore", name="one")[1]["flicker"]

    return measure


def test_flicker_is_the_change_of_the_error(flickering: Callable[[float], float | None]) -> None:
    assert flickering(0.0) == pytest.approx(0.0, abs=1e-6)  # a constant error does not flicker
    assert flickering(0.05) == pytest.approx(0.25, abs=1e-5)
    assert flickering(-0.2) == pytest.approx(1.0, abs=1e-5)  # a still render


def test_flicker_needs_two_timestamps_of_a_camera_and_a_change() -> None:
    image, flicker = np.zeros((4, 4, 3), np.float32), Flicker()
    flicker.add("28", image, image, None)
    flicker.add("64", image + 1, image, None)
    assert flicker.value() is None
    flicker.add("28", image, image + 0.1, None)
    assert flicker.value() is None
    flicker.add("64", image, image, np.zeros((4, 4), bool))
    assert flicker.value() is None
