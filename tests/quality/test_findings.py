"""One rule names a difference at full strength, at the chosen strength and along all strengths."""

import pytest

from stages.quality.findings import finding

FLOOR = {"psnr_least": 0.1, "ssim_least": 0.01, "lpips_least": 0.004}


@pytest.mark.parametrize(
    ("name", "difference", "ends", "error", "word"),
    [
        ("psnr", 0.3, (0.1, 0.5), None, "gain"),
        ("psnr", -0.3, (-0.5, -0.1), None, "loss"),
        ("lpips", -0.03, (-0.05, -0.01), None, "gain"),
        ("lpips_at_psnr", 0.03, (0.01, 0.05), None, "loss"),
        ("highest_ssim", 0.03, (0.01, 0.05), None, "gain"),
        ("full_lpips", 0.03, (0.01, 0.05), None, "loss"),
        ("psnr", 0.3, (-0.1, 0.7), None, "the interval includes zero"),
        ("psnr", 0.05, (0.04, 0.06), None, "below the noise floor"),
        ("ssim", 0.05, (0.04, 0.06), None, "gain"),
        ("psnr", 0.3, (None, None), None, "one scene has no interval"),
        ("lpips_at_ssim", -0.03, (-0.05, -0.01), 0.04, "within the error of interpolation"),
        ("lpips_at_ssim", -0.03, (-0.05, -0.01), 0.001, "gain"),
    ],
)
def test_difference_has_one_name(
    name: str, difference: float, ends: tuple, error: float | None, word: str
) -> None:
    assert finding(name, difference, *ends, FLOOR, error) == word


@pytest.mark.parametrize("name", ["psnr", "lpips_at_ssim", "full_ssim"])
@pytest.mark.parametrize("sign", [1, -1])
def test_without_a_noise_floor_nothing_is_more_than_a_difference(name: str, sign: int) -> None:
    ends = sorted((sign * 9.0, sign * 11.0))
    for floor in (None, {}):
        assert finding(name, sign * 10.0, *ends, floor) == "difference"
